"""The node of the development cluster: a pod under the restricted Pod Security Standard can do its work."""

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev import cluster
from dev.cluster.binaries import Tool
from dev.cluster.cluster import RUNTIME, STATE, Cluster
from dev.cluster.host import SYSCTLS, locked
from dev.cluster.images import write_archive
from dev.cluster.processes import Identity, wait_until

NAME = "test-tool"
IMAGE = "localhost/panosc-test/probe:1"
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: probe, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: home, namespace: probe}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: probe, namespace: probe}
spec: {selector: {app: probe}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: probe, labels: {app: probe}}
spec:
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 31415
    runAsGroup: 2718
    supplementalGroups: [4242]
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: probe
      image: localhost/panosc-test/probe:1
      imagePullPolicy: IfNotPresent
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      readinessProbe: {httpGet: {path: /hello, port: 8080}, periodSeconds: 1}
      volumeMounts: [{name: home, mountPath: /home/probe}]
  volumes: [{name: home, persistentVolumeClaim: {claimName: home}}]
"""

pytestmark = pytest.mark.skipif(cluster.external(), reason="the cluster of KUBECONFIG is not ours to stop")


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    command = [str(cluster.kubectl()), f"--kubeconfig={cluster.kubeconfig(NAME)}", *arguments]
    return subprocess.run(command, input=stdin, text=True, check=True, capture_output=True, timeout=120).stdout


def settings() -> dict[str, str]:
    return {name: Path("/proc/sys", *name.split(".")).read_text() for name in SYSCTLS}


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """One run of these tests at a time."""
    with locked(STATE / f".{NAME}.tests", "these tests run elsewhere: waiting"):
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool = Tool("probe", space=200_000_000, within=Path(__file__).parent)
    program = (tool.build() / "probe").read_bytes()
    archive = tmp_path_factory.mktemp("images") / "probe.tar"
    write_archive(archive, IMAGE, {"/probe": program}, ["/probe"])
    return archive


@pytest.fixture(scope="module")
def probe(archive: Path) -> Iterator[str]:
    """The URL of the probe's service; its cluster goes down afterwards."""
    cluster.down(NAME, wipe=True)
    cluster.up(NAME)
    cluster.load(NAME, [str(archive)])
    kubectl("create", "-f", "-", stdin=OBJECTS)
    wait_for_probe()
    yield f"http://{kubectl('get', 'service', '-n', 'probe', 'probe', '-o', 'jsonpath={.spec.clusterIP}')}"
    cluster.down(NAME, wipe=True)


def wait_for_probe() -> None:
    kubectl("wait", "--namespace=probe", "--for=condition=Ready", "pod/probe", "--timeout=60s")


def report(url: str, resolve: str = "probe.probe", fetch: str = "http://probe.probe/hello") -> dict[str, Any]:
    """Return what the probe finds; its service may need a second after the pod is ready."""
    answers: list[dict[str, Any]] = []

    def asked() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/report?resolve={resolve}&fetch={fetch}", timeout=20) as answer:
                answers.append(json.load(answer))
        except urllib.error.URLError:
            return False
        return "refused" not in answers[-1]["Fetched"]

    assert wait_until(asked, 10, interval=0.2), answers
    return answers[-1]


def test_restricted_pod_runs_as_its_user_with_a_read_only_root_and_a_syscall_filter(probe: str) -> None:
    told = report(probe)
    assert (told["Uid"], told["Gid"], set(told["Groups"])) == (31415, 2718, {2718, 4242})
    assert told["Seccomp"] == "2"
    assert "read-only file system" in told["Root"]


def test_pod_writes_to_its_volume_of_the_default_storage_class(probe: str) -> None:
    report(probe)  # writes
    assert report(probe)["Home"] == "mark"
    assert kubectl("get", "pvc", "-n", "probe", "home", "-o", "jsonpath={.spec.storageClassName}") == "local-path"


def test_pod_resolves_and_reaches_services(probe: str) -> None:
    address = probe.removeprefix("http://")
    assert report(probe, resolve="probe.probe.svc.cluster.local")["Addresses"] == [address]
    assert report(probe, resolve="probe.probe")["Addresses"] == [address]
    assert report(probe)["Fetched"] == "hello"
    api = report(probe, fetch="http://kubernetes.default:443/")["Fetched"]
    assert "HTTP request to an HTTPS server" in api


def test_pod_has_no_way_out(probe: str) -> None:
    for _ in range(8):  # the kernel limits how often it says so
        began = time.monotonic()
        told = report(probe, resolve="www.example.org", fetch="http://192.0.2.1/")
        assert "no such host" in told["Addresses"][0]
        assert "unreachable" in told["Fetched"]
        assert time.monotonic() - began < 3


def test_host_reaches_the_pod_itself(probe: str) -> None:
    address = kubectl("get", "pod", "-n", "probe", "probe", "-o", "jsonpath={.status.podIP}")
    with urllib.request.urlopen(f"http://{address}:8080/hello", timeout=5) as answer:
        assert answer.read() == b"hello"


def test_kubectl_logs_and_exec_reach_the_pod(probe: str) -> None:
    assert "listening" in kubectl("logs", "--namespace=probe", "probe")
    with pytest.raises(subprocess.CalledProcessError) as second:
        kubectl("exec", "--namespace=probe", "probe", "--", "/probe")
    assert "address already in use" in second.value.stderr


def test_same_image_is_not_loaded_twice(probe: str, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.load(NAME, [str(archive)])
    assert f"{IMAGE} is there" in capsys.readouterr().err


def test_image_of_buildah_is_loaded_under_its_name(probe: str, archive: Path) -> None:
    def buildah(*words: str) -> str:
        return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()

    image = "localhost/panosc-test/built:1"
    container = buildah("from", f"docker-archive:{archive}")
    try:
        buildah("config", "--label", f"made={time.time()}", container)
        first = buildah("commit", "--quiet", container, image)
        store = Cluster.get(NAME).images
        assert store.load(image) == {image: True}
        assert store.load("panosc-test/built:1") == {image: False}
        buildah("config", "--label", f"made={time.time()}", container)
        buildah("commit", "--quiet", container, image)
        buildah("rmi", first)
        assert store.load(image) == {image: True}
    finally:
        buildah("rm", container)
        buildah("rmi", "--force", image, IMAGE)


def test_pod_and_its_volume_come_back_after_down_and_up(probe: str) -> None:
    report(probe)
    cluster.down(NAME)
    assert not (RUNTIME / NAME).exists()
    cluster.up(NAME)
    assert wait_until(lambda: probe_container("restartCount") != "0", 60, interval=0.5)
    wait_for_probe()
    assert report(probe)["Home"] == "mark"


def probe_container(field: str) -> str:
    path = f"jsonpath={{.status.containerStatuses[0].{field}}}"
    return kubectl("get", "pod", "-n", "probe", "probe", "-o", path)


def test_deleted_claim_takes_its_folder_along(probe: str) -> None:
    volumes = Cluster.get(NAME).configuration.volumes
    assert list(volumes.iterdir())
    kubectl("delete", "--namespace=probe", "pod/probe", "pvc/home", "--wait")
    assert wait_until(lambda: not list(volumes.iterdir()), 30)


def commands(members: Iterable[Identity]) -> set[str]:
    """Return the names of those processes that still run: the kubelet's helpers come and go."""
    found = set()
    for member in members:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add(Path(f"/proc/{member.pid}/comm").read_text().strip())
    return found


def test_down_leaves_nothing_of_a_node(archive: Path) -> None:
    cluster.down(NAME, wipe=True)
    before = settings()
    cluster.up(NAME)
    cluster.load(NAME, [str(archive)])
    kubectl("create", "-f", "-", stdin=OBJECTS)
    wait_for_probe()
    found = Cluster.get(NAME)
    members = found.group.members()
    network = Path(f"/proc/{found.group.members('services')[0].pid}/ns/net").readlink()
    assert {"containerd", "containerd-shim", "pause", "probe", "kubelet", "coredns"} <= commands(members)

    cluster.down(NAME, wipe=True)
    assert not any(member.alive for member in members)
    assert not [other for other in Path("/proc").glob("[0-9]*") if in_network(other, network)]
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if f"/panosc-dev/{NAME}/" in line]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/panosc-{NAME}"))
    assert not Path(f"/run/netns/panosc-{NAME}").exists()
    assert not Path("/sys/class/net", found.configuration.addresses.host_interface).exists()
    assert not (STATE / NAME).exists()
    assert not (RUNTIME / NAME).exists()
    assert not [link for link in Path("/var/log/containers").glob("*") if not link.exists()]
    if not any(Identity.read(file) for file in RUNTIME.glob("*/containerd.pid")):
        assert settings() == before


def in_network(process: Path, network: Path) -> bool:
    try:
        return (process / "ns" / "net").readlink() == network
    except OSError:  # it ended meanwhile
        return False
