"""One cluster: how it comes up and goes down."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dev.cluster import binaries, network
from dev.cluster.addresses import SLOTS, Addresses, free_slot
from dev.cluster.configuration import NODE_IMAGE, USERS, Configuration
from dev.cluster.host import (
    ClusterError,
    last_line,
    locked,
    require_space,
    restore_sysctls,
    run,
    save_sysctls,
    say,
    unmount_under,
    write,
)
from dev.cluster.images import ImageStore, write_archive
from dev.cluster.processes import Group, Identity, Service, stop, wait_until

STATE = Path("/var/lib/panosc-dev")
RUNTIME = Path("/run/panosc-dev")
_SYSCTLS = RUNTIME / "sysctls.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOG_LINKS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
_SHARED_FOLDERS = (
    *(Path("/run/containerd/s"), Path("/run/containerd")),
    *(_CNI_RESULTS, _CNI_RESULTS.parent, _LOG_LINKS),
    *(_DEVICE_PLUGINS.parent, _DEVICE_PLUGINS.parent.parent),
)
_ADDONS = Path(__file__).parent / "addons.yaml"
_SPACE = {True: 1_000_000_000, False: 6_000_000_000}  # bytes, by control_plane_only


@dataclass(frozen=True)
class Cluster:
    """A cluster of this host.

    Parameters
    ----------
    name
        Its name: lower-case letters, digits and hyphens.
    slot
        Its number, which decides its address ranges.
    """

    name: str
    slot: int

    @classmethod
    def find(cls, name: str) -> Cluster | None:
        """Return the cluster of that name, None if there is none.

        Raises
        ------
        ClusterError
            If it cannot be a name.
        """
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?", name):
            raise ClusterError(f"{name!r} is no name for a cluster: use a-z, 0-9 and -, at most 32, a letter first")
        try:
            return cls(name, json.loads((STATE / name / "cluster.json").read_text())["slot"])
        except FileNotFoundError:
            return None

    @classmethod
    def get(cls, name: str) -> Cluster:
        """Return the cluster of that name.

        Raises
        ------
        ClusterError
            If there is none.
        """
        cluster = cls.find(name)
        if cluster is None:
            raise ClusterError(f"there is no cluster {name}: make it with `dev.cluster up --name {name}`")
        return cluster

    @classmethod
    def create(cls, name: str) -> Cluster:
        """Give a new cluster its slot.

        Raises
        ------
        ClusterError
            If no slot is free.
        """
        with locked(STATE / ".slots.lock", "waiting for another cluster to be made"):
            slots = [json.loads(file.read_text())["slot"] for file in STATE.glob("*/cluster.json")]
            slot = free_slot(slots, network.routes_of_host())
            if slot is None:
                raise ClusterError(
                    f"all {SLOTS} address ranges in 10.96.0.0/16, 10.244.0.0/16 and 172.30.255.0/24 are taken by "
                    "clusters or routes of this host: remove a cluster with `down --wipe`, or a route"
                )
            (STATE / name).mkdir(parents=True, mode=0o700, exist_ok=True)
            write(STATE / name / "cluster.json", json.dumps({"slot": slot}))
        return cls(name, slot)

    @property
    def configuration(self) -> Configuration:
        """What its programs are told."""
        return Configuration(self.name, Addresses(self.slot), STATE / self.name, RUNTIME / self.name)

    @property
    def images(self) -> ImageStore:
        """The images of its node."""
        return ImageStore(self.configuration.containerd_socket)

    @property
    def group(self) -> Group:
        """The control group of all its processes."""
        return Group(self.configuration.cgroup)

    def services(self, control_plane_only: bool = False) -> dict[str, Service]:
        """Return its programs by name, in the order of their start."""
        kubernetes = binaries.KUBERNETES.folder
        services = self.configuration.control_plane(kubernetes)
        if not control_plane_only:
            services += self.configuration.node(kubernetes, binaries.COREDNS.folder, binaries.PROVISIONER.folder)
        return {service.name: service for service in services}

    def process(self, service: str) -> Identity | None:
        """Return the running process of a program, None if it does not run."""
        return Identity.read(self.configuration.runtime / f"{service}.pid")

    def log(self, service: str) -> Path:
        """Return the log file of a program."""
        return self.configuration.state / "logs" / f"{service}.log"

    def runs(self, control_plane_only: bool = False) -> bool:
        """Whether all its programs run and the API server is ready."""
        return all(self.process(name) for name in self.services(control_plane_only)) and self._api_ready()

    def kubectl(self, *arguments: str | Path, timeout: float = 60) -> str:
        """Run kubectl as the cluster's administrator and return its output."""
        program = binaries.KUBERNETES.folder / "kubectl"
        return run(program, f"--kubeconfig={self.configuration.kubeconfig}", *arguments, timeout=timeout)

    # Up

    def up(self, control_plane_only: bool) -> None:
        """Build what is missing and start what does not run."""
        if self.runs(control_plane_only):
            say(f"cluster {self.name} runs already")
            return
        binaries.make(control_plane_only)
        if not self.configuration.kubeconfig.exists():
            require_space(STATE, _SPACE[control_plane_only], f"cluster {self.name}")
        self._prepare()
        if not control_plane_only:
            with _shared_settings():
                save_sysctls(_SYSCTLS)
                self._start("containerd")
        self._start("etcd", "kube-apiserver")
        self._wait("kube-apiserver", self._api_ready, 120)
        say(f"API server ready at {self.configuration.server}")
        self._start("kube-controller-manager")
        if not control_plane_only:
            self._up_node()
        self._wait("kube-controller-manager", self._default_account, 60, interval=0.3)
        say(f"cluster {self.name} ready")

    def _prepare(self) -> None:
        """Make the folders, files, network and control group."""
        configuration = self.configuration
        _forget_last_boot()
        if not network.complete(self.name, configuration.addresses):
            self._end()  # what a namespace that is gone left behind
            network.create(self.name, configuration.addresses)
        self.group.create()
        for folder in ("logs", "etcd", "kubelet", "pods", "volumes"):
            (configuration.state / folder).mkdir(mode=0o700, exist_ok=True)
        configuration.volumes.chmod(0o711)
        for path, text in configuration.files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, text)
        if not configuration.kubeconfig.exists():
            self._make_certificates()

    def _make_certificates(self) -> None:
        """Let kubeadm write certificates and kubeconfigs; the administrator's comes last."""
        configuration, kubeadm = self.configuration, binaries.KUBERNETES.folder / "kubeadm"
        config = f"--config={configuration.runtime / 'kubeadm.yaml'}"
        shutil.rmtree(configuration.pki, ignore_errors=True)
        run(kubeadm, "init", "phase", "certs", "all", config)
        for user in USERS:
            client = "system:kube-proxy" if user == "kube-proxy" else user
            text = run(
                *(kubeadm, "kubeconfig", "user", f"--client-name={client}", config),
                "--validity-period=87600h",
            )
            write(configuration.pki / f"{user}.conf", text)
        for user in ("controller-manager", "scheduler", "kubelet", "admin", "super-admin"):
            run(kubeadm, "init", "phase", "kubeconfig", user, config, f"--kubeconfig-dir={configuration.pki}")

    def _up_node(self) -> None:
        self._wait("containerd", self.images.ready, 60)
        self.images.load(str(self._node_image()))
        began = datetime.now(UTC).replace(microsecond=0) if self.process("kubelet") is None else None
        self._start("kube-scheduler", "kubelet", "kube-proxy", "coredns")
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", _ADDONS)
        self._start("local-path-provisioner")
        self._wait("kubelet", lambda: self._node_ready(began), 120, interval=0.3)
        self._wait("coredns", lambda: _answers(self.configuration.dns_ready), 60)
        say(f"node {self.name} ready, DNS at {self.configuration.addresses.node}")

    def _node_image(self) -> Path:
        program = (binaries.NODE_IMAGE.folder / "node-image").read_bytes()
        archive = self.configuration.runtime / "node-image.tar"
        write_archive(archive, NODE_IMAGE, {"/pause": program, "/volume": program}, ["/pause"])
        return archive

    def _start(self, *names: str) -> None:
        """Start the programs that do not run."""
        services, configuration = self.services(), self.configuration
        for name in names:
            if self.process(name) is None:
                identity = services[name].start(network.namespace(self.name), self.group, self.log(name))
                identity.write(configuration.runtime / f"{name}.pid")

    def _wait(self, name: str, ready: Callable[[], bool], seconds: float, interval: float = 0.1) -> None:
        """Wait for a program to do its work; raise a `ClusterError` if it ends or takes too long."""
        ended = False

        def settled() -> bool:
            nonlocal ended
            ended = self.process(name) is None
            return ended or ready()

        settled_in_time = wait_until(settled, seconds, interval)
        if ended or not settled_in_time:
            what = "ended" if ended else f"was not ready within {seconds:.0f} s"
            said = last_line(self.log(name).read_text(errors="replace"))
            raise ClusterError(f"{name} {what}: {said[:300]} (log: {self.log(name)})")

    def _api_ready(self) -> bool:
        return self.configuration.ca.exists() and _answers(f"{self.configuration.server}/readyz", self.configuration.ca)

    def _default_account(self) -> bool:
        """Whether pods may be made: the admission wants their namespace's service account."""
        try:
            self.kubectl("get", "serviceaccount", "--namespace=default", "default")
        except ClusterError:
            return False
        return True

    def _node_ready(self, since: datetime | None) -> bool:
        """Whether the kubelet says so, and said it after `since` (its last life may have said it too)."""
        try:
            node = json.loads(self.kubectl("get", "node", self.name, "--output=json"))
        except ClusterError:
            return False
        return any(
            condition["type"] == "Ready"
            and condition["status"] == "True"
            and (since is None or datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since)
            for condition in node["status"]["conditions"]
        )

    # Down

    def down(self, wipe: bool) -> None:
        """Stop it and remove all but its state, or its state too."""
        self._end()
        network.remove(self.name, self.configuration.addresses)
        shutil.rmtree(self.configuration.runtime, ignore_errors=True)
        with _shared_settings():
            if not any(Identity.read(file) for file in RUNTIME.glob("*/containerd.pid")):
                restore_sysctls(_SYSCTLS)
                _DEVICE_PLUGINS.unlink(missing_ok=True)
                for folder in _SHARED_FOLDERS:
                    with suppress(OSError):  # it is not there, or other programs use it
                        folder.rmdir()
        if wipe:
            shutil.rmtree(self.configuration.state)

    def _end(self) -> None:
        """End its processes, pods first, and undo what they did to the host."""
        configuration = self.configuration
        self._stop("local-path-provisioner", "coredns", "kubelet", "kube-proxy", "kube-scheduler")
        self._stop("kube-controller-manager")
        stop(self.group.members("kubepods"), grace=3)
        self._stop("containerd", "kube-apiserver")
        self._stop("etcd")
        stop(self.group.members(), grace=0)
        unmount_under(configuration.state, configuration.runtime)
        self.group.remove()
        self._remove_traces()

    def _stop(self, *names: str) -> None:
        stop([process for name in names if (process := self.process(name))], grace=5)

    def _remove_traces(self) -> None:
        """Remove what containerd, its network plugins and the kubelet wrote outside of our folders."""
        configuration = self.configuration
        for pod in (configuration.runtime / "containerd").glob("io.containerd.runtime.v2.task/k8s.io/*"):
            with suppress(FileNotFoundError):
                Path((pod / "address").read_text().removeprefix("unix://")).unlink()
            for result in _CNI_RESULTS.glob(f"*-{pod.name}-*"):
                result.unlink()
        for link in _LOG_LINKS.glob("*.log"):
            if link.is_symlink() and link.readlink().is_relative_to(configuration.state):
                link.unlink()


@contextmanager
def working_on(name: str) -> Iterator[None]:
    """Keep other programs from starting or stopping a cluster meanwhile."""
    Cluster.find(name)  # refuses what cannot be a name
    with locked(STATE / f".{name}.lock", f"another program works on cluster {name}: waiting for it"):
        yield


def _shared_settings() -> AbstractContextManager[None]:
    """Keep other clusters from changing what the nodes of this host share."""
    return locked(STATE / ".shared.lock", "waiting for another cluster to start or stop")


def _forget_last_boot() -> None:
    """Remove what the processes of an earlier boot left, where /run is not emptied by it."""
    record, boot = RUNTIME / "boot", _BOOT_ID.read_text()
    if not record.exists() or record.read_text() != boot:
        shutil.rmtree(RUNTIME, ignore_errors=True)
        RUNTIME.mkdir(parents=True, mode=0o755)
        write(record, boot)


def _answers(url: str, ca: Path | None = None) -> bool:
    """Whether a GET of `url` is answered with 200."""
    context = ssl.create_default_context(cafile=str(ca)) if ca else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
