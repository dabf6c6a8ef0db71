"""What the cluster needs of its host: commands, locks, mounts, kernel settings."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SYSCTLS = (  # those that the kubelet sets for the whole machine
    "vm.overcommit_memory",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


class ClusterError(Exception):
    """Something that the user can put right; the message says how, in one line."""


_started = time.monotonic()


def say(text: str) -> None:
    """Show a line of progress with the time since the program started."""
    print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, timeout: float = 120) -> str:
    """Run a command and return what it printed.

    Raises
    ------
    ClusterError
        If it is not installed, fails (with its last line of output) or takes longer than `timeout` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise ClusterError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"no answer within {timeout:.0f} s from: {' '.join(words)}") from None
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(words)}: {last_line(done.stderr or done.stdout)}")
    return done.stdout


def last_line(text: str) -> str:
    """Return the last line that is not empty, where most programs say what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def require_root() -> None:
    """Raise a `ClusterError` unless this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        raise ClusterError("a cluster needs root on this machine: run it again as root (sudo)")


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise a `ClusterError` unless the file system of `folder` has `needed` bytes left."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ClusterError(
            f"{purpose} needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free: make room"
        )


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; say `waiting` if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def mounts_under(folders: Sequence[Path], mountinfo: str) -> list[Path]:
    """Return the mount points in or below `folders`, the last mounted first.

    Parameters
    ----------
    folders
        Folders of the cluster.
    mountinfo
        Text of ``/proc/self/mountinfo`` (proc(5)), where a blank is octal: 040.
    """
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if any(point.is_relative_to(folder) for folder in folders)]


def unmount_under(*folders: Path) -> None:
    """Unmount all that is mounted below `folders`."""
    for point in mounts_under(folders, Path("/proc/self/mountinfo").read_text()):
        run("umount", "--lazy", point)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def save_sysctls(record: Path) -> None:
    """Note the kernel settings that the kubelet will change, unless a cluster before noted them."""
    if not record.exists():
        write(record, json.dumps({name: _sysctl(name).read_text().strip() for name in SYSCTLS}))


def restore_sysctls(record: Path) -> None:
    """Put the kernel settings back and forget the record."""
    if not record.exists():
        return
    for name, value in json.loads(record.read_text()).items():
        if _sysctl(name).read_text().strip() != value:
            _sysctl(name).write_text(value)
    record.unlink()
