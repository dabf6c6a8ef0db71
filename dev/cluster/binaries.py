"""The cluster's programs: built from their Go modules once, or installed from Debian's packages."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.host import ClusterError, last_line, locked, require_space, run, say

SOURCES = Path(__file__).parent / "go"
CACHE = Path.home() / ".cache" / "panosc-dev"
CNI_PLUGINS = Path("/usr/lib/cni")

# Debian's package of each program.
_PACKAGES = {
    "buildah": "buildah",
    "containerd": "containerd",
    "iptables": "iptables",
    "runc": "runc",
    str(CNI_PLUGINS / "ptp"): "containernetworking-plugins",
}
NODE_PROGRAMS = ("containerd", "runc", "iptables", str(CNI_PLUGINS / "ptp"))


@dataclass(frozen=True)
class Tool:
    """A program built from a Go module of ours.

    Parameters
    ----------
    name
        The program's own name, and the folder of its Go module.
    space
        Bytes that building it takes at most, with its modules and the compiler's cache.
    package
        The main package.
    names
        Further names that the program answers to.
    version
        Variable of the program that tells its version, as ``VARIABLE=VALUE``.
    within
        Folder that the module's folder is in.
    """

    name: str
    space: int
    package: str = "."
    names: tuple[str, ...] = ()
    version: str = ""
    within: Path = SOURCES

    @property
    def source(self) -> Path:
        """Folder of its Go module."""
        return self.within / self.name

    @property
    def flags(self) -> tuple[str, ...]:
        """Arguments of ``go build``: a static, stripped program that knows its version."""
        version = f" -X {self.version}" if self.version else ""
        return "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w{version}"

    @property
    def key(self) -> str:
        """Hash of all that decides what the program is."""
        return cache_key(self.source, *self.flags, self.package)

    @property
    def folder(self) -> Path:
        """Folder in the cache that holds the program and its names."""
        return CACHE / "bin" / f"{self.name}-{self.key}"

    def build(self) -> Path:
        """Build the program unless it is in the cache, and return its folder.

        Raises
        ------
        ClusterError
            If there is no Go, no room, no network, or the source does not compile.
        """
        if self.folder.exists():
            return self.folder
        with locked(CACHE / "build.lock", "another build runs: waiting for it"):
            if not self.folder.exists():
                require_space(CACHE, self.space, f"building {self.name}")
                self._build()
        return self.folder

    def _build(self) -> None:
        log = CACHE / "logs" / f"build-{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder.with_name(f".{self.folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        say(f"building {self.name} from its Go modules, once (log: {log})")
        with log.open("w") as output:
            packages = _go("list", "-deps", self.package, source=self.source, log=log, doing="fetching modules")
            _go(
                *("build", "-v", *self.flags, "-o", str(temporary / self.name), self.package),
                source=self.source,
                log=log,
                doing=f"compiling {self.name}",
                packages=len(packages.splitlines()),
            )
            output.flush()
        for name in self.names:
            (temporary / name).symlink_to(self.name)
        temporary.replace(self.folder)


def cache_key(source: Path, *flags: str) -> str:
    """Return a short hash of a Go module's own files and of build flags."""
    digest = hashlib.sha256("\0".join(flags).encode())
    for file in sorted(source.iterdir()):
        if file.name in ("go.mod", "go.sum") or file.suffix == ".go":
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def required_version(go_mod: str, module: str) -> str:
    """Return the version of `module` that the text of a ``go.mod`` requires."""
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod does not require {module}")
    return found[1]


def _go_command() -> str:
    for command in ("go", "/usr/local/go/bin/go"):
        if found := shutil.which(command):
            return found
    raise ClusterError("Go is needed to build the cluster: install Go 1.25 or later in /usr/local/go")


def _go(*arguments: str, source: Path, log: Path, doing: str, packages: int = 0) -> str:
    """Run the go command with its messages in `log`, showing every 5 s how far it is; return its output."""
    environment = os.environ | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    began = time.monotonic()
    with log.open("a") as messages, (log.with_suffix(".out")).open("w+") as output:
        at = messages.tell()
        process = subprocess.Popen(
            [_go_command(), *arguments], cwd=source, env=environment, stdout=output, stderr=messages
        )
        while True:
            try:
                process.wait(timeout=5)
                break
            except subprocess.TimeoutExpired:
                lines = log.read_text()[at:].splitlines()
                count = sum(not line.startswith("go: ") for line in lines)
                far = f"{count} of {packages} packages" if packages else f"{len(lines)} modules"
                say(f"  {doing}: {far}, {time.monotonic() - began:.0f} s")
            except BaseException:
                process.kill()
                process.wait()
                raise
        if process.returncode != 0:
            raise ClusterError(f"{doing} failed: {last_line(log.read_text()[at:])} (log: {log})")
        output.seek(0)
        return output.read()


def install(*programs: str) -> None:
    """Install the Debian packages of the programs that are missing.

    Raises
    ------
    ClusterError
        If there is no apt-get, or it fails, as without network.
    """
    missing = sorted({_PACKAGES[program] for program in programs if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"install these programs, there is no apt-get here to do it: {' '.join(missing)}")
    say(f"installing from Debian: {' '.join(missing)}")
    command = (
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        "--option=DPkg::Lock::Timeout=300",
    )
    with locked(CACHE / "install.lock", "another installation runs: waiting for it"):
        try:
            run(*command, *missing, timeout=600)
        except ClusterError:  # the lists of packages may be old, or not be there
            run("apt-get", "update", timeout=300)
            run(*command, *missing, timeout=600)


KUBERNETES_VERSION = required_version((SOURCES / "kubernetes" / "go.mod").read_text(), "k8s.io/kubernetes")

KUBERNETES = Tool(
    "kubernetes",
    space=8_000_000_000,
    names=(
        *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
        *("kubeadm", "kubectl"),
    ),
    version=f"k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
)
COREDNS = Tool("coredns", space=2_000_000_000)
PROVISIONER = Tool("local-path-provisioner", space=1_000_000_000, package="github.com/rancher/local-path-provisioner")
NODE_IMAGE = Tool("node-image", space=200_000_000)


def make(control_plane_only: bool) -> None:
    """Build or install the programs of a cluster that are missing."""
    KUBERNETES.build()
    if not control_plane_only:
        install(*NODE_PROGRAMS)
        for tool in (COREDNS, PROVISIONER, NODE_IMAGE):
            tool.build()
