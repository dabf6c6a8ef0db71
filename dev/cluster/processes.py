"""Processes of a cluster: started in its network namespace and control groups, and ended for sure."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.host import ClusterError, last_line, write

# A shell of its own session joins the control groups, tells its process id and becomes the service.
_LAUNCH = """
log=$1; shift
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift
echo $$
exec "$@" > "$log" 2>&1 < /dev/null
"""

# Nothing of the user's: a proxy, say, would be asked for the way to the API server.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with the same number by its start time.

    Parameters
    ----------
    pid
        Process id.
    start
        Start time in clock ticks since boot: field 22 of ``/proc/PID/stat``, proc(5).
    """

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of the process that has this number now, None if none lives."""
        try:
            return cls.parse(Path(f"/proc/{pid}/stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            return None

    @classmethod
    def parse(cls, stat: str) -> Identity | None:
        """Read the text of ``/proc/PID/stat``; a zombie counts as ended."""
        before, _, after = stat.rpartition(")")  # the name in parentheses may hold anything
        fields = after.split()
        return None if fields[0] in "ZX" else cls(int(before.split()[0]), int(fields[19]))

    @classmethod
    def read(cls, file: Path) -> Identity | None:
        """Return the process that a pid file names, None if it has ended."""
        try:
            pid, start = (int(word) for word in file.read_text().split())
        except (FileNotFoundError, ValueError):
            return None
        process = cls(pid, start)
        return process if process.alive else None

    def write(self, file: Path) -> None:
        """Write the pid file."""
        write(file, f"{self.pid} {self.start}\n")

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, but never to another process that got the number since."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True)
class Group:
    """The control group of a cluster, in every hierarchy of the host: nothing can leave it.

    Parameters
    ----------
    name
        Name below the root of each hierarchy.
    """

    name: str

    @property
    def _folders(self) -> list[Path]:
        return [root / self.name for root in hierarchies(Path("/proc/self/mounts").read_text())]

    @property
    def services(self) -> list[Path]:
        """Folders of the part for the services, one in each hierarchy (the other part is the pods')."""
        return [folder / "services" for folder in self._folders]

    def create(self) -> None:
        """Make the group where it is missing."""
        for folder in self.services:
            for level in (folder.parent, folder):
                level.mkdir(exist_ok=True)
                for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 leaves them empty: nothing may run
                    if (level / setting).exists() and not (level / setting).read_text().strip():
                        (level / setting).write_text((level.parent / setting).read_text())
            self._delegate(folder.parent)

    @staticmethod
    def _delegate(folder: Path) -> None:
        """Let the groups below have the controllers (version 2 only)."""
        if not (folder / "cgroup.controllers").exists():
            return
        controllers = (folder.parent / "cgroup.controllers").read_text().split()
        for level in (folder.parent, folder):
            for controller in controllers:
                (level / "cgroup.subtree_control").write_text(f"+{controller}")

    def members(self, part: str = "") -> list[Identity]:
        """Return the processes of the group, or of a part of it, with all below."""
        numbers = set[int]()
        for folder in self._folders:
            for file in (folder / part).glob("**/cgroup.procs"):
                with contextlib.suppress(FileNotFoundError, OSError):
                    numbers.update(int(word) for word in file.read_text().split())
        return [identity for identity in map(Identity.of, sorted(numbers)) if identity]

    def remove(self) -> None:
        """Remove the empty group, the deepest first."""
        for folder in self._folders:
            for level in sorted([folder, *folder.glob("**/")], reverse=True):
                with contextlib.suppress(FileNotFoundError):
                    _retry_busy(level.rmdir)


def _retry_busy(action: Callable[[], None], seconds: float = 5) -> None:
    """Retry while the kernel still takes a group's last process out of it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            action()
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def hierarchies(mounts: str) -> list[Path]:
    """Return the mount points of the control group hierarchies in the text of ``/proc/self/mounts``."""
    fields = [line.split() for line in mounts.splitlines()]
    return [Path(point) for _, point, kind, *_ in fields if kind in ("cgroup", "cgroup2")]


@dataclass(frozen=True)
class Service:
    """A program of the cluster.

    Parameters
    ----------
    name
        Name of its log and pid files.
    command
        Program and arguments.
    """

    name: str
    command: Sequence[str | Path]

    def start(self, net: Path, group: Group, log: Path) -> Identity:
        """Start it in a network namespace and a control group.

        Raises
        ------
        ClusterError
            If it ends at once.
        """
        command = ["nsenter", f"--net={net}", *map(str, self.command)]
        launcher = ["setsid", "--fork", "sh", "-c", _LAUNCH, "sh", str(log), *map(str, group.services), "--"]
        launched = subprocess.run(launcher + command, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
        identity = Identity.of(int(launched.stdout)) if launched.stdout.strip() else None
        if identity is None:
            raise ClusterError(f"{self.name} did not start: {last_line(launched.stderr)} (log: {log})")
        return identity


def stop(processes: Iterable[Identity], grace: float) -> None:
    """End processes: ask, wait up to `grace` seconds, then kill."""
    processes = list(processes)
    for process in processes:
        process.signal(signal.SIGTERM)
    if not wait_until(lambda: not any(process.alive for process in processes), grace):
        for process in processes:
            process.signal(signal.SIGKILL)
        wait_until(lambda: not any(process.alive for process in processes), 10)


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.05) -> bool:
    """Return whether `condition` became true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
