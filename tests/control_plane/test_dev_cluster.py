"""The development cluster itself: it comes up, is found running, and leaves the host as it was."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import cluster
from dev.cluster.cluster import RUNTIME, STATE, Cluster
from dev.cluster.host import locked
from dev.cluster.processes import Identity

NAME = "test-tool"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")

pytestmark = pytest.mark.skipif(cluster.external(), reason="the cluster of KUBECONFIG is not ours to stop")


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """One run of these tests at a time, with the programs built: the times below are those of the cluster."""
    cluster.kubectl()
    with locked(STATE / f".{NAME}.tests", "these tests run elsewhere: waiting"):
        cluster.down(NAME, wipe=True)
        yield
        cluster.down(NAME, wipe=True)


@pytest.fixture
def kubeconfig() -> Path:
    return cluster.up(NAME, control_plane_only=True)


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    command = [str(cluster.kubectl()), f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(command, input=stdin, text=True, check=True, capture_output=True, timeout=60).stdout


def processes() -> dict[str, Identity | None]:
    found = Cluster.get(NAME)
    return {name: found.process(name) for name in CONTROL_PLANE}


def settings() -> str:
    names = ("net.ipv4.ip_forward", "net.ipv4.conf.all", "net.ipv4.conf.default")
    return subprocess.run(["sysctl", "--ignore", *names], text=True, check=False, capture_output=True).stdout


def traces(found: Cluster) -> dict[str, list[str]]:
    """Return what of the cluster is to be seen on the host, apart from its processes."""

    def output(*command: str) -> list[str]:
        return subprocess.run(command, text=True, check=True, capture_output=True).stdout.splitlines()

    addresses = found.configuration.addresses
    marks = (
        *(f"panosc-{NAME}", f"panosc-dev/{NAME}", addresses.host_interface),
        *(str(addresses.link), str(addresses.pods), str(addresses.services)),
    )
    sights = {
        "links": output("ip", "-oneline", "link"),
        "routes": output("ip", "route", "show", "table", "all"),
        "namespaces": output("ip", "netns"),
        "mounts": Path("/proc/mounts").read_text().splitlines(),
        "control groups": [str(folder) for folder in Path("/sys/fs/cgroup").glob("**/panosc-*")],
    }
    return {
        what: [line for line in lines if any(re.search(rf"{re.escape(mark)}(?![-\w])", line) for mark in marks)]
        for what, lines in sights.items()
    }


def test_second_up_finds_it_running(kubeconfig: Path) -> None:
    before = processes()
    assert all(before.values())
    began = time.monotonic()
    assert cluster.up(NAME, control_plane_only=True) == kubeconfig
    assert time.monotonic() - began < 1
    assert processes() == before


def test_up_ignores_the_cluster_of_the_environment(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/does/not/exist")
    assert cluster.up(NAME, control_plane_only=True) == kubeconfig
    assert "v1.3" in kubectl(kubeconfig, "version")


def test_down_leaves_the_host_as_it_was() -> None:
    cluster.down(NAME, wipe=True)
    found = Cluster.create(NAME)
    assert not any(traces(found).values())
    before = settings()
    cluster.up(NAME, control_plane_only=True)
    running = [process for process in processes().values() if process]
    assert len(running) == len(CONTROL_PLANE)
    assert all(traces(found).values())
    cluster.down(NAME, wipe=True)
    assert not any(traces(found).values())
    assert settings() == before
    assert not any(process.alive for process in running)
    assert not (STATE / NAME).exists()
    assert not (RUNTIME / NAME).exists()


def test_down_keeps_the_state_for_the_next_up(kubeconfig: Path) -> None:
    kubectl(kubeconfig, "create", "namespace", "kept")
    cluster.down(NAME)
    assert not any(processes().values())
    cluster.up(NAME, control_plane_only=True)
    assert "kept" in kubectl(kubeconfig, "get", "namespace", "kept")


def test_up_starts_only_what_died(kubeconfig: Path) -> None:
    before = processes()
    victim = before["kube-apiserver"]
    assert victim is not None
    victim.signal(signal.SIGKILL)
    cluster.up(NAME, control_plane_only=True)
    after = processes()
    assert after["etcd"] == before["etcd"]
    assert after["kube-apiserver"] not in (None, victim)
    assert kubectl(kubeconfig, "get", "--raw", "/readyz") == "ok"


def test_up_recovers_when_all_died_with_their_network(kubeconfig: Path) -> None:
    kubectl(kubeconfig, "create", "namespace", "survivor")
    found = Cluster.get(NAME)
    for process in found.group.members():
        process.signal(signal.SIGKILL)
    subprocess.run(["ip", "link", "delete", found.configuration.addresses.host_interface], check=True)
    cluster.up(NAME, control_plane_only=True)
    assert "survivor" in kubectl(kubeconfig, "get", "namespace", "survivor")


def test_a_program_that_cannot_start_is_named_with_its_log(kubeconfig: Path) -> None:
    cluster.down(NAME)
    (kubeconfig.parent / "apiserver.crt").write_text("damaged")
    try:
        with pytest.raises(cluster.ClusterError, match=r"^kube-apiserver ended: .*certificate.* \(log: .*\.log\)$"):
            cluster.up(NAME, control_plane_only=True)
    finally:
        cluster.down(NAME, wipe=True)


def test_pod_security_and_admission_policies_are_in_force(kubeconfig: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": "strict"},
        "spec": {"containers": [{"name": "root", "image": "none"}]},
    }
    kubectl(kubeconfig, "create", "namespace", "strict")
    kubectl(kubeconfig, "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kubectl(kubeconfig, "create", "-f", "-", stdin=json.dumps(pod))
    assert 'violates PodSecurity "restricted' in refused.value.stderr
    assert "validatingadmissionpolicies" in kubectl(kubeconfig, "api-resources", "--output=name")


def test_two_clusters_live_side_by_side(kubeconfig: Path) -> None:
    other = cluster.up(f"{NAME}-2", control_plane_only=True)
    try:
        kubectl(other, "create", "namespace", "only-there")
        assert "only-there" not in kubectl(kubeconfig, "get", "namespaces")
        assert cluster.addresses(NAME).node != cluster.addresses(f"{NAME}-2").node
    finally:
        cluster.down(f"{NAME}-2", wipe=True)
    assert kubectl(kubeconfig, "get", "--raw", "/readyz") == "ok"
