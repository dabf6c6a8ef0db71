"""What sessions and jobs are made of: golden YAML, pod security, mounts, identity, tokens, names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from panosc_operator.api.owner import Owner
from panosc_operator.domain import dask, identity, job, names, session
from panosc_operator.domain.decision import Child, Context, Mode
from panosc_operator.domain.job import duration
from panosc_operator.domain.tokens import session_token

from tests.unit.operator import builders, pod_security
from tests.unit.operator.builders import CONTEXT, NOW, OWNER, Body, copied
from tests.unit.operator.golden_files import FOLDER, golden, job_children, session_children

GOLDEN = golden()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    committed = list(yaml.safe_load_all(path.read_text()))
    assert list(yaml.safe_load_all(GOLDEN[path])) == committed, f"see {FOLDER.name}/README.md"
    assert GOLDEN[path] == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert set(FOLDER.glob("*.yaml")) == set(GOLDEN)


def pod_specs() -> dict[str, Body]:
    """Return the spec of every pod that the operator has a hand in."""
    made = {kind: copied(body) for kind, body in builders.bodies_of(session_children(builders.session())).items()}
    jobs = {kind: copied(body) for kind, body in builders.bodies_of(job_children(builders.job())).items()}
    return {
        "session": made["Pod"]["spec"],
        "driver": jobs["Job"]["spec"]["template"]["spec"],
        "scheduler": jobs["DaskCluster"]["spec"]["scheduler"]["spec"],
        "worker": jobs["DaskCluster"]["spec"]["worker"]["spec"],
    }


PODS = ("session", "driver", "scheduler", "worker")


@pytest.mark.parametrize("part", PODS)
def test_pods_are_restricted(part: str) -> None:
    spec = pod_specs()[part]
    assert pod_security.violations(spec) == []
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (31415, 31416)
    assert spec["securityContext"]["supplementalGroups"] == [700000, 700001]


FLAWS: dict[str, Callable[[Body], Any]] = {
    "runAsNonRoot": lambda spec: spec["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda spec: spec["securityContext"].update(runAsUser=0),
    "seccompProfile": lambda spec: spec["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "fsGroup": lambda spec: spec["securityContext"].update(fsGroup=1),
    "automountServiceAccountToken": lambda spec: spec.pop("automountServiceAccountToken"),
    "hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "volume": lambda spec: spec["volumes"].append({"name": "nfs", "nfs": {"server": "s", "path": "/"}}),
    "data-check: allowPrivilegeEscalation": lambda spec: spec["initContainers"][0]["securityContext"].pop(
        "allowPrivilegeEscalation"
    ),
    "session: capabilities": lambda spec: spec["containers"][0]["securityContext"].update(
        capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}
    ),
    "session: privileged": lambda spec: spec["containers"][0]["securityContext"].update(privileged=True),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_the_check_of_pods_finds(flaw: str) -> None:
    spec = pod_specs()["session"]
    FLAWS[flaw](spec)
    (found,) = pod_security.violations(spec)
    assert found.startswith(flaw)


# --- data -------------------------------------------------------------------------------------------------------------


def mounts_of(spec: Body, container: int = 0) -> dict[str, Body]:
    """Return a container's mounts of facility data, by path."""
    mounts = spec["containers"][container]["volumeMounts"]
    return {mount["mountPath"]: mount for mount in mounts if mount["name"].startswith("data-")}


@pytest.mark.parametrize("part", ["session", "driver", "worker"])
def test_raw_is_read_only_wherever_it_is_seen(part: str) -> None:
    spec = pod_specs()[part]
    raw = mounts_of(spec)["/gpfs/exfel/exp/XMPL/201750/p700000/raw"]
    usr = mounts_of(spec)["/gpfs/exfel/exp/XMPL/201750/p700000/usr"]
    assert (raw["readOnly"], usr["readOnly"]) == (True, False)
    claims = {volume["name"]: volume.get("persistentVolumeClaim", {}) for volume in spec["volumes"]}
    assert claims[raw["name"]]["readOnly"] is True
    assert claims[usr["name"]]["readOnly"] is False


def test_raw_is_read_only_in_its_claim_and_volume() -> None:
    made = builders.bodies_of(session_children(builders.session()))
    for area, mode in (("raw", "ReadOnlyMany"), ("usr", "ReadWriteMany")):
        assert made[f"PersistentVolume/{area}"]["spec"]["accessModes"] == [mode]
        assert made[f"PersistentVolumeClaim/{area}"]["spec"]["accessModes"] == [mode]
    assert made["PersistentVolume/raw"]["spec"]["nfs"]["readOnly"] is True


@pytest.mark.parametrize(
    ("volume", "read_only"),
    [
        ({"hostPath": {"path": "/gpfs"}}, None),
        ({"nfs": {"server": "s", "path": "/gpfs"}}, True),
        ({"csi": {"driver": "d", "volumeHandle": "h"}}, True),
    ],
)
def test_volumes_are_static_kept_and_bound_to_one_claim(volume: Body, read_only: bool | None) -> None:
    source = builders.data_source(areas=[builders.area("raw", read_only=True, volume=volume)])
    made = builders.bodies_of(session_children(builders.session(), entries=[builders.environment(), source]))
    spec, claim = made["PersistentVolume/raw"]["spec"], made["PersistentVolumeClaim/raw"]
    ((kind, fields),) = volume.items()
    assert spec[kind].items() >= fields.items()
    assert spec[kind].get("readOnly") is read_only
    assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    assert spec["claimRef"]["name"] == claim["metadata"]["name"]
    assert spec["claimRef"]["namespace"] == claim["metadata"]["namespace"]
    assert claim["spec"]["storageClassName"] == spec["storageClassName"] == "", "nothing may be provisioned"
    labels = made["PersistentVolume/raw"]["metadata"]["labels"]
    assert claim["spec"]["selector"]["matchLabels"].items() <= labels.items()
    owner = claim["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("DataSource", "facility")


def test_claims_of_two_namespaces_have_volumes_of_their_own() -> None:
    volumes = {
        builders.bodies_of(session_children(builders.session(namespace=namespace)))["PersistentVolume/raw"]["metadata"][
            "name"
        ]
        for namespace in ("proposal-1", "proposal-2")
    }
    assert len(volumes) == 2


@pytest.mark.parametrize("part", ["session", "driver"])
def test_the_data_check_sees_the_roots_read_only(part: str) -> None:
    """The kubelet creates a missing subPath folder, as root: nothing may be mounted by subPath before the check."""
    spec = pod_specs()[part]
    (check,) = spec["initContainers"]
    assert len(check["volumeMounts"]) == 2
    for mount in check["volumeMounts"]:
        assert mount["readOnly"] is True
        assert not {"subPath", "subPathExpr"} & set(mount)
    for argument, path in zip(check["args"], mounts_of(spec), strict=True):
        folder, _, told = argument.partition("=")
        assert told == path
        root = next(mount for mount in check["volumeMounts"] if folder.startswith(mount["mountPath"] + "/"))
        assert root["name"] == mounts_of(spec)[path]["name"]
        assert folder.removeprefix(root["mountPath"] + "/") == mounts_of(spec)[path]["subPath"]


def test_without_data_there_is_no_check() -> None:
    made = builders.bodies_of(session_children(builders.session(data=[])))
    assert "initContainers" not in made["Pod"]["spec"]
    assert not [kind for kind in made if kind.startswith("PersistentVolume/")]


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_dask_pods_do_not_check_again(part: str) -> None:
    assert "initContainers" not in pod_specs()[part]


def test_visibility_area_shows_the_area_and_no_sub_path() -> None:
    source = builders.data_source(visibility="Area", areas=[builders.area("raw", read_only=True)])
    made = builders.bodies_of(session_children(builders.session(), entries=[builders.environment(), source]))
    spec = made["Pod"]["spec"]
    assert list(mounts_of(spec)) == ["/gpfs/exfel/exp"]
    assert "subPath" not in mounts_of(spec)["/gpfs/exfel/exp"]
    (argument,) = spec["initContainers"][0]["args"]
    assert argument.endswith("/XMPL/201750/p700000/raw=/gpfs/exfel/exp/XMPL/201750/p700000/raw")


def test_two_proposals_of_one_area_share_its_mount_under_visibility_area() -> None:
    source = builders.data_source(visibility="Area", areas=[builders.area("raw", read_only=True)])
    proposals = [builders.PROPOSAL, builders.PROPOSAL | {"proposal": "700001"}]
    entries = [builders.environment(), source]
    spec = builders.bodies_of(session_children(builders.session(data=proposals), entries=entries))["Pod"]["spec"]
    assert len(mounts_of(spec)) == 1
    assert len(spec["initContainers"][0]["args"]) == 2, "each proposal's folder is checked"


def test_two_proposals_have_a_mount_each() -> None:
    proposals = [builders.PROPOSAL | {"areas": ["raw"]}, builders.PROPOSAL | {"proposal": "700001", "areas": ["usr"]}]
    made = builders.bodies_of(session_children(builders.session(data=proposals)))
    assert list(mounts_of(made["Pod"]["spec"])) == [
        "/gpfs/exfel/exp/XMPL/201750/p700000/raw",
        "/gpfs/exfel/exp/XMPL/201750/p700001/usr",
    ]


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/gpfs/exfel/exp/{instrument}/{cycle}/p{proposal}/raw", "/gpfs/exfel/exp"),
        ("/data/{instrument}/{proposal}/raw", None),
    ],
)
def test_extra_data_finds_proposals_where_the_layout_is_its_own(path: str, root: str | None) -> None:
    source = builders.data_source(areas=[builders.area("raw", read_only=True, path=path)])
    made = builders.bodies_of(session_children(builders.session(), entries=[builders.environment(), source]))
    env = {entry["name"]: entry.get("value") for entry in made["Pod"]["spec"]["containers"][0]["env"]}
    assert env.get("EXTRA_DATA_DATA_ROOT") == root


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_owner_has_a_name_and_so_have_the_groups() -> None:
    owner = Owner.model_validate(OWNER)
    accounts = [line.split(":") for line in identity.passwd(owner, "/home/x").splitlines()]
    (me,) = [account for account in accounts if account[0] == "mmusterfrau"]
    assert me[2:4] == ["31415", "31416"]
    assert me[5] == "/home/x"
    groups = {line.split(":")[2]: line.split(":") for line in identity.group(owner).splitlines()}
    assert groups["31416"][0] == "mmusterfrau"
    assert groups["700000"] == ["p700000", "x", "700000", "mmusterfrau"]
    assert groups["700001"] == ["group700001", "x", "700001", "mmusterfrau"]


@pytest.mark.parametrize("part", PODS)
def test_the_account_files_come_from_annotations_that_the_pod_has(part: str) -> None:
    spec = pod_specs()[part]
    (account,) = [volume for volume in spec["volumes"] if volume["name"] == "account"]
    paths = {item["path"]: item["fieldRef"]["fieldPath"] for item in account["downwardAPI"]["items"]}
    assert paths == {
        "passwd": f"metadata.annotations['{names.PASSWD}']",
        "group": f"metadata.annotations['{names.GROUPS}']",
    }
    made = builders.bodies_of(session_children(builders.session())) | builders.bodies_of(job_children(builders.job()))
    metadata = {
        "session": made["Pod"]["metadata"],
        "driver": made["Job"]["spec"]["template"]["metadata"],
        "scheduler": made["DaskCluster"]["metadata"],
        "worker": made["DaskCluster"]["metadata"],
    }[part]
    assert {names.PASSWD, names.GROUPS} <= set(metadata["annotations"])
    assert {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]} >= {"/etc/passwd", "/etc/group"}


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_differ_by_all_that_they_are_made_of() -> None:
    tokens = {
        session_token(key, uid, run, member)
        for key in (b"k" * 32, b"l" * 32)
        for uid in ("a", "b")
        for run in (1, 2, 12)
        for member in ("eve", "2/eve")
    }
    assert len(tokens) == 24
    assert session_token(b"k" * 32, "a", 1, "eve") == session_token(b"k" * 32, "a", 1, "eve")
    assert all(len(token) == 64 for token in tokens)


@pytest.mark.parametrize("stage", [None, "starting", "ready", "failed"])
def test_the_token_is_in_the_secret_and_nowhere_else(stage: str | None) -> None:
    body = builders.session()
    first = session.decide(builders.session_snapshot(body), CONTEXT, NOW)
    made = builders.bodies_of(first.children)
    token = made["Secret"]["stringData"]["token"]
    pods = [builders.pod_at(made["Pod"], stage)] if stage else []
    decision = session.decide(builders.session_snapshot(body, pods), CONTEXT, NOW)
    assert decision.status is not None
    assert token not in json.dumps(decision.status.to_kubernetes())
    others = [child.manifest for child in decision.children or () if child.manifest["kind"] != "Secret"]
    assert token not in json.dumps(others)
    environment = {entry["name"]: entry for entry in made["Pod"]["spec"]["containers"][0]["env"]}
    assert "value" not in environment["JUPYTER_TOKEN"]
    reference = environment["JUPYTER_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": made["Secret"]["metadata"]["name"], "key": "token"}


def test_the_operators_key_is_in_no_object() -> None:
    key = CONTEXT.key.decode()
    children = [*session_children(builders.session()), *job_children(builders.job())]
    assert key not in json.dumps([child.manifest for child in children])


def test_another_key_is_another_token() -> None:
    other = Context(CONTEXT.namespace, CONTEXT.image, b"x" * 32)
    body = builders.session()
    tokens = {
        builders.bodies_of(session.decide(builders.session_snapshot(body), context, NOW).children)["Secret"][
            "stringData"
        ]["token"]
        for context in (CONTEXT, other)
    }
    assert len(tokens) == 2


# --- network ----------------------------------------------------------------------------------------------------------


def policies() -> dict[str, Body]:
    made = builders.bodies_of(session_children(builders.session()))["NetworkPolicy"]
    return {"session": made, "job": builders.bodies_of(job_children(builders.job()))["NetworkPolicy"]}


@pytest.mark.parametrize("part", ["session", "job"])
def test_both_directions_are_denied_but_for_what_is_listed(part: str) -> None:
    spec = policies()[part]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule.get("from") for rule in spec["ingress"]), "no rule lets everybody in"
    outside = [rule for rule in spec["egress"] if "to" not in rule]
    assert [port["port"] for rule in outside for port in rule["ports"]] == [53, 53], "out to DNS alone"
    assert all(peer == {"podSelector": spec["podSelector"]} for rule in spec["egress"] for peer in rule.get("to", ()))


def test_the_operator_reaches_what_it_asks() -> None:
    def ports_from(policy: Body, labels: Mapping[str, str]) -> set[int]:
        return {
            port["port"]
            for rule in policy["spec"]["ingress"]
            for peer in rule["from"]
            if peer.get("namespaceSelector", {}).get("matchLabels") == labels
            for port in rule["ports"]
        }

    operator = {"kubernetes.io/metadata.name": CONTEXT.namespace}
    assert ports_from(policies()["session"], operator) == {8888}
    assert ports_from(policies()["job"], operator) == {8780, 8786, 8787}
    assert ports_from(policies()["session"], {"analysis.panosc.eu/gateway": "true"}) == {8888}
    assert ports_from(policies()["job"], {"analysis.panosc.eu/gateway": "true"}) == set()


# --- the driver's description -----------------------------------------------------------------------------------------


def description(entries: list[Body] | None = None, **spec: Any) -> Body:
    snapshot = builders.job_snapshot(builders.job(**spec), entries=entries)
    made = builders.bodies_of(job.decide(snapshot, CONTEXT, NOW).children)
    (container,) = made["Job"]["spec"]["template"]["spec"]["containers"]
    (text,) = [entry["value"] for entry in container["env"] if entry["name"] == "PANOSC_JOB"]
    told: Body = json.loads(expanded(text, container["env"]))
    return told


def expanded(text: str, variables: list[Body]) -> str:
    """Return a variable's value as the kubelet sets it: ``$(NAME)`` is put in, ``$$`` is ``$``."""
    values = {variable["name"]: variable.get("value", "") for variable in variables}
    return re.sub(r"\$\$|\$\((\w+)\)", lambda m: values.get(m[1], m[0]) if m[1] else "$", text)


def test_the_driver_is_told_what_to_do() -> None:
    told = description(
        parameters={"trainsPerPartition": 500},
        workers={"minimum": 2, "maximum": 4},
        output={"area": "usr", "path": "results/a", "onExists": "Overwrite"},
    )
    assert told["workflow"] == {"name": "sase-delivery", "version": "1.2.0"}
    assert told["parameters"] == {"trainsPerPartition": 500}
    assert told["inputs"] == [
        {"proposal": "700000", "run": run, "path": f"/gpfs/exfel/exp/XMPL/201750/p700000/raw/r{run:04d}"}
        for run in (8, 9)
    ]
    assert told["output"] == {"path": "/gpfs/exfel/exp/XMPL/201750/p700000/usr/results/a", "onExists": "Overwrite"}
    assert told["workers"] == {"minimum": 2, "maximum": 4}
    assert (told["name"], told["namespace"], told["run"]) == ("ratio", builders.NAMESPACE, 1)


@pytest.mark.parametrize("text", ["$(HOME)", "$$(HOME)", "$", "$$", "price: 5$ (net)"])
def test_parameters_reach_the_driver_as_they_are(text: str) -> None:
    assert expanded("$(HOME)$$", [{"name": "HOME", "value": "/tmp"}]) == "/tmp$"
    entries = [*builders.catalogue_bodies(), builders.workflow(parameters={})]
    assert description(entries=entries, parameters={"text": text})["parameters"] == {"text": text}


def test_the_scheduler_is_where_the_driver_looks_for_it() -> None:
    cluster = builders.bodies_of(job_children(builders.job()))["DaskCluster"]
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    assert description()["scheduler"] == f"tcp://{name}-scheduler.{namespace}.svc:8786"
    (port,) = [p for p in cluster["spec"]["scheduler"]["service"]["ports"] if p["port"] == 8786]
    container = cluster["spec"]["scheduler"]["spec"]["containers"][0]
    assert {p["name"]: p["containerPort"] for p in container["ports"]}[port["targetPort"]] == 8786


def test_a_job_is_failed_at_once_by_bad_input_and_not_by_a_drained_node() -> None:
    rules = builders.bodies_of(job_children(builders.job()))["Job"]["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob", "Ignore"]
    assert rules[0]["onExitCodes"] == {"operator": "In", "values": [2]}


def test_deadline_and_retries_are_the_jobs_own() -> None:
    made = builders.bodies_of(job_children(builders.job(activeDeadline="1h30m", backoffLimit=7)))
    assert made["Job"]["spec"]["activeDeadlineSeconds"] == 5400
    assert made["Job"]["spec"]["backoffLimit"] == 7
    assert "activeDeadlineSeconds" not in builders.bodies_of(job_children(builders.job()))["Job"]["spec"]


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("8h", 28800), ("1h1m1s", 3661), ("5s", 5)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    ("text", "number"), [("500m", "0.5"), ("2", "2"), ("4Gi", "4294967296"), ("1.5G", "1500000000"), ("10k", "10000")]
)
def test_quantities(text: str, number: str) -> None:
    assert dask.quantity(text) == Decimal(number)


def test_a_worker_has_a_thread_for_each_core_begun_and_its_whole_memory() -> None:
    entries = [
        builders.environment("analysis", "Job", flavours=[{"name": "odd", "cpu": "2500m", "memory": "3Gi"}]),
        builders.workflow(),
        builders.data_source(),
    ]
    body = builders.job()
    first = job.decide(builders.job_snapshot(body, entries=entries), CONTEXT, NOW)
    driver = builders.bodies_of(first.children)["Job"]
    pod = builders.pod_at(builders.pod_of_job(driver), "ready")
    decision = job.decide(builders.job_snapshot(body, [driver, pod], entries=entries), CONTEXT, NOW)
    cluster = builders.bodies_of(decision.children)["DaskCluster"]
    arguments = cluster["spec"]["worker"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--nthreads") + 1] == "3"
    assert arguments[arguments.index("--memory-limit") + 1] == str(3 * 2**30)


# --- names ------------------------------------------------------------------------------------------------------------

labels = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
uids = st.uuids().map(str)
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


@given(name=labels, uid=uids, run=st.integers(1, 99999))
def test_names_fit_and_tell_runs_apart(name: str, uid: str, run: int) -> None:
    lasting = names.lasting_name(name, uid)
    one, next_one = names.run_name(name, uid, run), names.run_name(name, uid, run + 1)
    assert len({lasting, one, next_one}) == 3
    assert all(len(found) <= 63 for found in (lasting, one, next_one))
    cluster = names.run_name(name, uid, run, names.DASK_CLUSTER)
    assert len(cluster) <= 50
    for found in (lasting, one, cluster):
        assert found[0].isalpha()
        assert "--" not in found or "--" in name
        assert all(character in "abcdefghijklmnopqrstuvwxyz0123456789-" for character in found)
        assert found[-1] != "-"


@given(name=labels, uid=uids, other=uids)
def test_names_of_two_objects_differ(name: str, uid: str, other: str) -> None:
    assert (names.lasting_name(name, uid) == names.lasting_name(name, other)) == (uid == other)


def test_long_names_that_begin_alike_are_told_apart() -> None:
    long, longer = "x" * 62 + "a", "x" * 62 + "b"
    assert names.data_claim(long, "raw") != names.data_claim(longer, "raw")
    assert names.data_volume(long, "raw", "n") != names.data_volume(longer, "raw", "n")
    assert names.lasting_name(long, "1") != names.lasting_name(longer, "2")


def owned(children: tuple[Child, ...]) -> list[Child]:
    return [child for child in children if names.PARENT_UID in child.manifest["metadata"]["labels"]]


def test_children_are_labelled_and_owned_by_their_parent() -> None:
    for body, children in (
        (builders.session(), session_children(builders.session())),
        (builders.job(), job_children(builders.job())),
    ):
        mine = owned(children)
        assert len(mine) >= 3
        for child in mine:
            metadata = child.manifest["metadata"]
            (reference,) = metadata["ownerReferences"]
            assert reference == {
                "apiVersion": body["apiVersion"],
                "kind": body["kind"],
                "name": body["metadata"]["name"],
                "uid": body["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
            assert metadata["labels"][names.PARENT_UID] == body["metadata"]["uid"]
            assert metadata["labels"][names.MANAGED_BY] == names.OPERATOR
            assert metadata["namespace"] == body["metadata"]["namespace"]


def test_pods_and_jobs_are_never_patched() -> None:
    modes = {
        child.manifest["kind"]: child.mode
        for child in [*session_children(builders.session()), *job_children(builders.job())]
    }
    assert {kind for kind, mode in modes.items() if mode is Mode.CREATE} == {
        "Pod", "Job", "PersistentVolume", "PersistentVolumeClaim",
    }  # fmt: skip
    assert {kind for kind, mode in modes.items() if mode is Mode.REPLACE} == {"Secret"}
