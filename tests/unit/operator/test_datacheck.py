"""The data check as it runs: another process with the owner's uid and groups, on folders that are or are not there."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from panosc_operator import datacheck

from tests.unit.operator import builders
from tests.unit.operator.golden_files import session_children

UID, GID, PROPOSAL_GID = 31415, 31416, 700000
PATH = "/gpfs/exfel/exp/XMPL/201750/p700000/raw"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process with another uid")


@pytest.fixture
def area() -> Iterator[Path]:
    """Return an area with one proposal that its group may read, in folders that everybody may search."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        proposal = root / "XMPL" / "p700000"
        proposal.mkdir(parents=True)
        os.chown(proposal, 0, PROPOSAL_GID)
        proposal.chmod(0o750)
        yield root


def check(*folders: Path, groups: tuple[int, ...] = ()) -> tuple[int, dict[str, str]]:
    """Run the check in a process of the owner; return its exit status and what it left for the operator."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        log = Path(name) / "termination-log"
        log.touch()
        log.chmod(0o666)
        # Forked, not started anew: the owner may not be able to reach the interpreter.
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.setgroups(groups)
                os.setgid(GID)
                os.setuid(UID)
                status = datacheck.main([f"{folder}={PATH}" for folder in folders], log)
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), json.loads(log.read_text() or "{}")


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_member_of_the_group_may_read(area: Path) -> None:
    assert check(area / "XMPL/p700000", groups=(PROPOSAL_GID,)) == (0, {})


def test_somebody_else_may_not(area: Path) -> None:
    status, said = check(area / "XMPL/p700000", groups=(42,))
    assert (status, said["reason"]) == (2, "ProposalForbidden")
    for word in (PATH, str(UID), str(GID), "42", "supplementalGroups"):
        assert word in said["message"]


@pytest.mark.parametrize("mode", [0o740, 0o710], ids=["may list, not enter", "may enter, not list"])
def test_a_folder_that_can_only_half_be_read_is_forbidden(area: Path, mode: int) -> None:
    (area / "XMPL/p700000").chmod(mode)
    status, said = check(area / "XMPL/p700000", groups=(PROPOSAL_GID,))
    assert (status, said["reason"]) == (2, "ProposalForbidden")


@pytest.mark.parametrize("folder", ["XMPL/p999999", "NONE/p700000", "a/b/c/d"])
def test_a_missing_folder_is_told_and_not_made(area: Path, folder: str) -> None:
    before = listing(area)
    status, said = check(area / folder)
    assert (status, said["reason"]) == (2, "ProposalNotFound")
    assert PATH in said["message"]
    assert listing(area) == before


def test_a_file_is_no_folder(area: Path) -> None:
    (area / "XMPL/p1").write_text("")
    assert check(area / "XMPL/p1")[1]["reason"] == "ProposalNotFound"


def test_absence_is_not_guessed_behind_a_closed_door(area: Path) -> None:
    (area / "XMPL").chmod(0o700)
    assert check(area / "XMPL/p999999")[1]["reason"] == "ProposalForbidden"


def test_links_are_followed(area: Path) -> None:
    (area / "link").symlink_to(area / "XMPL/p700000")
    (area / "dangling").symlink_to(area / "XMPL/p999999")
    assert check(area / "link", groups=(PROPOSAL_GID,)) == (0, {})
    assert check(area / "dangling")[1]["reason"] == "ProposalNotFound"


def test_the_first_that_is_wrong_is_told(area: Path) -> None:
    fine, missing = area / "XMPL/p700000", area / "XMPL/p999999"
    assert check(fine, missing, groups=(PROPOSAL_GID,))[1]["reason"] == "ProposalNotFound"
    assert check(fine, fine, groups=(PROPOSAL_GID,)) == (0, {})


def test_the_pod_runs_this_module_and_needs_nothing_else() -> None:
    pod = builders.bodies_of(session_children(builders.session()))["Pod"]
    (container,) = pod["spec"]["initContainers"]
    assert container["command"] == ["python3", "-m", datacheck.__name__]
    imported = {
        line.split()[1] for line in Path(datacheck.__file__).read_text().splitlines() if line.startswith("import")
    }
    assert imported <= sys.stdlib_module_names, "it starts in a fraction of a second"
