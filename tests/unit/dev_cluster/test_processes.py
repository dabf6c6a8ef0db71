import os
import signal
import subprocess
from pathlib import Path

import pytest

from dev.cluster.processes import Identity, hierarchies, stop, wait_until

STAT = "4711 (a) b) (c) {state} 1 4711 4711 0 -1 4194560 1 0 0 0 7 8 0 0 20 0 9 0 {start} 1 2 3\n"


def test_identity_is_the_number_and_the_start_time_whatever_the_name_holds() -> None:
    assert Identity.parse(STAT.format(state="S", start=98765)) == Identity(4711, 98765)


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_zombie_has_ended(state: str) -> None:
    assert Identity.parse(STAT.format(state=state, start=98765)) is None


def test_pid_file_names_this_process_until_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        identity = Identity.of(sleeper.pid)
        assert identity is not None
        identity.write(tmp_path / "pid")
        assert Identity.read(tmp_path / "pid") == identity
        stop([identity], grace=5)
        assert Identity.read(tmp_path / "pid") is None


def test_a_later_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        now = Identity.of(stranger.pid)
        assert now is not None
        before = Identity(stranger.pid, now.start - 1)
        before.write(tmp_path / "pid")
        assert Identity.read(tmp_path / "pid") is None
        before.signal(signal.SIGKILL)
        stop([before], grace=0.1)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("text", ["", "12", "x y", "1 2 3"])
def test_damaged_pid_file_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert Identity.read(tmp_path / "pid") is None


def test_stop_kills_what_does_not_listen() -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        identity = Identity.of(deaf.pid)
        assert identity is not None
        stop([identity], grace=0.2)
        assert deaf.wait(5) == -signal.SIGKILL


def test_wait_until_gives_up() -> None:
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.1)


def test_own_process_has_an_identity() -> None:
    identity = Identity.of(os.getpid())
    assert identity is not None
    assert identity.alive


def test_hierarchies_of_both_versions_are_found() -> None:
    mounts = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
/dev/vda / ext4 rw 0 0
"""
    assert hierarchies(mounts) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]
