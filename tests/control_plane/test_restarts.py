"""An operator that is killed, stopped, or one of several: what it made is neither touched nor made twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.control_plane.api import Api, Object, eventually, settled, wait_for_phase, wait_for_reason
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.kubelet import Stage
from tests.control_plane.objects import job, made_for, owned_by, session, uids, wait_for_data_claims
from tests.control_plane.operator_process import NAMESPACE, OperatorProcess, forget_leader

Versions = dict[tuple[str, str], tuple[str, str]]


def everything(api: Api, namespace: str) -> Versions:
    """Return uid and resourceVersion of a namespace's session and job and of all that was made for them."""
    parents = [o | {"kind": kind} for kind in ("AnalysisSession", "AnalysisJob") for o in api.list(kind, namespace)]
    return uids([*made_for(api, namespace), *parents])


def versions_of(api: Api, namespace: str, parent: Object) -> Versions:
    """Return uid and resourceVersion of what a session owns."""
    return uids(owned_by(made_for(api, namespace), parent))


def restart(operator: OperatorProcess, api: Api) -> None:
    """Kill the operator, start it again, and wait until it has looked at everything."""
    operator.kill()
    forget_leader(api)
    operator.start()
    operator.wait_to_lead()
    operator.wait_for_passes(api)


def test_killed_in_the_middle_and_while_all_runs(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    api, kubelet = control_plane.api, control_plane.kubelet

    # In the middle of both starts.
    kubelet.plan(namespace, "session", until=Stage.CHECKED)
    kubelet.plan(namespace, "driver", until=Stage.STARTED)
    look = api.create(session(namespace))
    reduce = api.create(job(namespace))
    wait_for_reason(api, look, "DataReady", "True Mounted")
    wait_for_reason(api, reduce, "InputReady", "Unknown CheckingInput")
    wait_for_data_claims(api, namespace)
    before = settled("the start", lambda: everything(api, namespace))
    assert [kind for kind, _ in before].count("Pod") == 2

    restart(operator, api)
    assert settled("the restarted operator", lambda: everything(api, namespace)) == before

    # While the one is ready and the other runs.
    kubelet.progress[namespace] = {"progress": {"total": 4, "done": 1, "failed": 0}, "timing": {"read": 1.0}}
    kubelet.plan(namespace, "session", until=Stage.READY)
    kubelet.plan(namespace, "driver", until=Stage.READY)
    wait_for_phase(api, look, "Ready")
    wait_for_phase(api, reduce, "Running")
    eventually("the progress is told", lambda: api.get("AnalysisJob", namespace, "reduce")["status"].get("timing"))  # type: ignore[index]
    before = settled("both", lambda: everything(api, namespace), quiet=4)
    # Session, driver, scheduler, two workers.
    assert [kind for kind, _ in before].count("Pod") == 5

    restart(operator, api)
    assert settled("the restarted operator", lambda: everything(api, namespace)) == before


@pytest.fixture
def replica(control_plane: ControlPlane) -> Iterator[OperatorProcess]:
    """Return a second operator that is not yet started."""
    process = OperatorProcess(control_plane.kubeconfig, control_plane.folder, "replica")
    yield process
    if process.running:
        process.kill()
        forget_leader(control_plane.api)
    control_plane.check_log(process.log)


def test_a_second_replica_waits_and_takes_over(
    control_plane: ControlPlane, operator: OperatorProcess, replica: OperatorProcess, namespace: str
) -> None:
    api = control_plane.api
    replica.start()
    assert replica.get("/readyz")[0] == 200
    assert (operator.metric("panosc_leader"), replica.metric("panosc_leader")) == (1, 0)

    look = api.create(session(namespace))
    deleted = [api.create(session(namespace, "old")), api.create(job(namespace, "old"))]
    wait_for_phase(api, look, "Ready")
    wait_for_phase(api, deleted[0], "Ready")
    wait_for_phase(api, deleted[1], "Running")
    assert replica.metric("panosc_reconcile_total") == 0
    of_look = settled("the session", lambda: versions_of(api, namespace, look))

    # Killed: the Lease has to run out. What is asked for meanwhile is done by the next leader; what is deleted goes
    # without it, as children have owners and no finalizers.
    operator.kill()
    killed_at = time.monotonic()
    for parent in deleted:
        api.delete(parent["kind"], namespace, "old")
    created: list[Object] = [api.create(session(namespace, "gap")), api.create(job(namespace, "gap"))]
    replica.wait_to_lead(15)
    assert time.monotonic() - killed_at < 15
    wait_for_phase(api, created[0], "Ready")
    wait_for_phase(api, created[1], "Running")
    for parent in deleted:
        eventually(
            f"{parent['kind']} and its children are gone",
            lambda parent=parent: not owned_by(made_for(api, namespace), parent),  # type: ignore[misc]
        )
    assert replica.metric("panosc_api_requests_total", verb="delete") == 0
    assert versions_of(api, namespace, look) == of_look
    assert replica.metric("panosc_orphans_total") == 0

    # Stopped: the Lease is given up at once.
    operator.start()
    assert (operator.metric("panosc_leader"), replica.metric("panosc_leader")) == (0, 1)
    assert replica.terminate() == 0
    stopped_at = time.monotonic()
    created = [api.create(session(namespace, "next")), api.create(job(namespace, "next"))]
    operator.wait_to_lead(5)
    assert time.monotonic() - stopped_at < 5
    wait_for_phase(api, created[0], "Ready")
    wait_for_phase(api, created[1], "Running")
    lease = api.get("Lease", NAMESPACE, "panosc-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"]
