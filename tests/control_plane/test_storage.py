"""Homes, and the volumes and claims of data sources, as the real volume controller binds them."""

from __future__ import annotations

import pytest
from panosc_operator.domain.names import home_claim

from tests.control_plane.api import Api, Object, eventually, wait_for_phase
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.objects import made_for, owned_by, session

pytestmark = pytest.mark.usefixtures("operator")


def data_objects(api: Api, namespace: str, kind: str) -> dict[str, Object]:
    """Return the volumes or claims that the DataSource owns for a namespace, by name."""
    (source,) = api.list("DataSource")
    owned = owned_by(made_for(api, namespace), source)
    return {o["metadata"]["name"]: o for o in owned if o["kind"] == kind}


def phases(objects: dict[str, Object]) -> set[str]:
    return {o["status"]["phase"] for o in objects.values()}


def test_released_volumes_are_made_again(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    first = wait_for_phase(api, api.create(session(namespace)), "Ready")
    old = data_objects(api, namespace, "PersistentVolume")
    assert len(old) == 2
    api.delete("AnalysisSession", namespace, "look")
    eventually("the session is gone", lambda: not owned_by(made_for(api, namespace), first))
    for name in data_objects(api, namespace, "PersistentVolumeClaim"):
        api.delete("PersistentVolumeClaim", namespace, name)
    eventually(
        "the volumes are released", lambda: phases(data_objects(api, namespace, "PersistentVolume")) == {"Released"}
    )

    wait_for_phase(api, api.create(session(namespace, "again")), "Ready")

    def bound() -> bool:
        volumes = data_objects(api, namespace, "PersistentVolume")
        claims = data_objects(api, namespace, "PersistentVolumeClaim")
        assert (phases(volumes), phases(claims)) == ({"Bound"}, {"Bound"})
        assert volumes.keys() == old.keys()
        return not {v["metadata"]["uid"] for v in volumes.values()} & {v["metadata"]["uid"] for v in old.values()}

    eventually("new volumes and claims are bound", bound)


def test_volumes_and_claims_say_who_may_write(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    found = wait_for_phase(api, api.create(session(namespace)), "Ready")
    volumes = data_objects(api, namespace, "PersistentVolume")
    for volume in volumes.values():
        area = volume["spec"]["claimRef"]["name"].split("-")[-2]
        mode = {"raw": "ReadOnlyMany", "usr": "ReadWriteMany"}[area]
        assert volume["spec"]["accessModes"] == [mode]
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    pod = api.get("Pod", namespace, found["status"]["podName"])
    assert pod is not None
    (container,) = pod["spec"]["containers"]
    path = "/gpfs/exfel/exp/XMPL/201750/p700000"
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[f"{path}/raw"]["readOnly"] is True
    assert not mounts[f"{path}/usr"].get("readOnly")
    assert mounts[f"{path}/raw"]["subPath"] == "XMPL/201750/p700000/raw"
    (check,) = pod["spec"]["initContainers"]
    assert all(mount["readOnly"] and "subPath" not in mount for mount in check["volumeMounts"])


def test_a_home_that_is_there_is_used(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    api.create(claim | {"metadata": {"name": "mine", "namespace": namespace}, "spec": spec})
    found = wait_for_phase(api, api.create(session(namespace, home={"claim": "mine"})), "Ready")
    pod = api.get("Pod", namespace, found["status"]["podName"])
    assert pod is not None
    (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == "home"]
    assert volume["persistentVolumeClaim"]["claimName"] == "mine"
    assert api.get("PersistentVolumeClaim", namespace, home_claim("mmusterfrau")) is None
