"""A real control plane with the operator, and stubs of what it lacks: kubelet, scheduler, dask-kubernetes."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kubernetes.client.exceptions import ApiException
from panosc_operator.domain.tokens import session_token

from dev import cluster
from dev.cluster import binaries
from dev.cluster.cluster import STATE
from dev.cluster.host import locked
from tests.control_plane.api import Api, Object, eventually
from tests.control_plane.dask_operator import StubDaskOperator
from tests.control_plane.kubelet import StubKubelet
from tests.control_plane.objects import ROOT
from tests.control_plane.operator_process import ACCOUNT, KEY, NAMESPACE, OperatorProcess, account_kubeconfig

NAME = "cptest"
_numbers = itertools.count(1)


@dataclass
class ControlPlane:
    """What the tests work with."""

    api: Api
    """With an administrator's rights."""
    account: Api
    """With the rights of the operator's ServiceAccount."""
    kubeconfig: Path
    """Of the operator's ServiceAccount."""
    kubelet: StubKubelet
    dask: StubDaskOperator
    folder: Path
    secrets: set[str] = field(default_factory=set, repr=False)
    """What no log may hold: the access tokens that were made, and the ServiceAccount's."""

    def check_log(self, log: Path) -> None:
        """Assert that a log tells of no exception that nobody expected, and no token."""
        text = log.read_text()
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:4000]
        assert "unexpected" not in text
        assert not [secret for secret in self.secrets if secret in text], f"{log} holds a token"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Bring up a control plane of its own with everything but the operator; remove it at the end."""
    if cluster.external():
        pytest.skip(
            "CLUSTER=external: these tests make Nodes and pod status themselves, which needs a control plane of their "
            "own without scheduler and kubelet; unset CLUSTER to run them on this host"
        )
    folder = tmp_path_factory.mktemp("control-plane")
    with locked(STATE / f".{NAME}.tests", "these tests run elsewhere: waiting"):
        try:
            cluster.down(NAME, wipe=True)
            yield from _control_plane(cluster.up(NAME, control_plane_only=True), folder)
        finally:
            cluster.down(NAME, wipe=True)


def _control_plane(kubeconfig: Path, folder: Path) -> Iterator[ControlPlane]:
    api = Api(kubeconfig, folder / "discovery.json")
    _install(api)
    account, token = account_kubeconfig(api, folder)
    with (
        StubKubelet(api, str(cluster.addresses(NAME).host)) as kubelet,
        StubDaskOperator(api) as dask,
    ):
        account_api = Api(account, folder / "discovery-account.json")
        plane = ControlPlane(api, account_api, account, kubelet, dask, folder, {token})
        yield plane
        assert not [*kubelet.failures, *dask.failures], "the stubs failed"


def _install(api: Api) -> None:
    """Install what a platform team installs, but for the operator's Deployment."""
    manifests = ROOT / "manifests"
    api.kubectl("apply", "--server-side", "-k", ROOT / "crds")
    api.kubectl("apply", "--server-side", "-f", manifests / "components/dask-operator/crds")
    api.kubectl("wait", "--for=condition=Established", "--timeout=20s", "crd", "--all")
    api.kubectl("apply", "-k", manifests / "catalogue")
    # Outside the cluster the operator asks for progress through the API server.
    applied = ("base/namespace.yaml", "base/rbac.yaml", "components/development/role.yaml", "examples/datasource.yaml")
    api.kubectl("apply", *(f"--filename={manifests / file}" for file in applied))
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "panosc-operator-development"}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    api.create(binding | {"metadata": {"name": "operator-outside"}, "roleRef": role, "subjects": [subject]})


@pytest.fixture(scope="session")
def _operator_process(control_plane: ControlPlane) -> Iterator[OperatorProcess]:
    process = OperatorProcess(control_plane.kubeconfig, control_plane.folder, "operator")
    process.start()
    yield process
    if process.running:
        assert process.terminate() == 0
    control_plane.check_log(process.log)


@pytest.fixture
def operator(control_plane: ControlPlane, _operator_process: OperatorProcess) -> Iterator[OperatorProcess]:
    """Return the operator, which runs and leads."""
    if not _operator_process.running:
        _operator_process.start()
    _operator_process.wait_to_lead()
    yield _operator_process
    control_plane.check_log(_operator_process.log)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """Return a new namespace that is labelled as a platform team labels it."""
    with new_namespace(control_plane) as name:
        yield name


@pytest.fixture
def other_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """Return another one."""
    with new_namespace(control_plane) as name:
        yield name


@contextmanager
def new_namespace(plane: ControlPlane) -> Iterator[str]:
    """Make a namespace; remove it with the sessions and jobs in it."""
    api, name = plane.api, f"proposal-{next(_numbers)}"
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}})
    eventually("the namespace's service account", lambda: api.get("ServiceAccount", name, "default"))
    yield name
    _collect_tokens(plane, name)
    for kind in ("AnalysisSession", "AnalysisJob"):
        for parent in api.list(kind, name):
            api.delete(kind, name, parent["metadata"]["name"])
    api.delete("Namespace", "", name)


def _collect_tokens(plane: ControlPlane, namespace: str) -> None:
    """Remember the tokens of the namespace's sessions, and assert that no status holds one."""
    for parent in plane.api.list("AnalysisSession", namespace):
        metadata, status = parent["metadata"], parent.get("status") or {}
        username = parent["spec"]["owner"]["username"]
        tokens = {session_token(KEY, metadata["uid"], run, username) for run in range(status.get("run", 0) + 2)}
        assert not [token for token in tokens if token in str(parent)], "an object holds a token"
        plane.secrets |= tokens


@pytest.fixture
def catalogue(control_plane: ControlPlane) -> Iterator[list[Object]]:
    """Return a list to which a test adds what it creates in the catalogue, so that it is removed."""
    made: list[Object] = []
    yield made
    for entry in made:
        control_plane.api.delete(entry["kind"], "", entry["metadata"]["name"])


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Debian's promtool, unpacked from the package prometheus: nothing is installed, no service starts."""
    program = binaries.CACHE / "promtool" / "usr" / "bin" / "promtool"
    if not program.exists():
        folder = tmp_path_factory.mktemp("prometheus")
        for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", "prometheus"]):
            subprocess.run(command, cwd=folder, check=True, timeout=300)
        (package,) = folder.glob("prometheus_*.deb")
        subprocess.run(["dpkg", "-x", package, binaries.CACHE / "promtool"], check=True, timeout=60)
    return program


def refusal(api: Api, manifest: Object) -> str:
    """Return the API server's words when it refuses to create an object."""
    with pytest.raises(ApiException) as caught:
        api.create(manifest)
    assert caught.value.status in (400, 422), caught.value
    return str(caught.value.body)
