"""Check, with the owner's identity, that the folders of the proposals are there and can be read.

It runs in the first container of every pod that mounts data, on read-only mounts of the areas' roots, before anything
is mounted by ``subPath``: the kubelet would create a missing folder. Only the standard library is imported, so it
takes a fraction of a second.

    python3 -m panosc_operator.datacheck FOLDER=PATH...

FOLDER is where the check sees a proposal's folder and PATH what the facility calls it. The finding is written to the
container's termination message; the exit status is 0 or 2.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

TERMINATION_LOG = "/dev/termination-log"


def finding(folder: Path, path: str) -> dict[str, str] | None:
    """Return what is wrong with a folder, or ``None``.

    Parameters
    ----------
    folder
        The folder as the check sees it.
    path
        What the facility calls it, for the message.
    """
    try:
        is_folder = folder.is_dir()
    except PermissionError:
        is_folder, forbidden = False, True
    else:
        forbidden = is_folder and not os.access(folder, os.R_OK | os.X_OK)
        if not is_folder:
            forbidden = not _reachable(folder)
    if forbidden:
        groups = ", ".join(str(gid) for gid in sorted({os.getgid(), *os.getgroups()}))
        return {
            "reason": "ProposalForbidden",
            "message": f"{path} cannot be read by uid {os.getuid()} with groups {groups}: the owner needs the "
            "proposal's group in supplementalGroups, or is not a member of it.",
        }
    if not is_folder:
        return {
            "reason": "ProposalNotFound",
            "message": f"{path} does not exist: check proposal, instrument and cycle.",
        }
    return None


def _reachable(folder: Path) -> bool:
    """Whether the nearest existing folder above may be searched, so that absence is known and not guessed."""
    for parent in folder.parents:
        try:
            if parent.is_dir():
                return os.access(parent, os.X_OK)
        except PermissionError:
            return False
    return True


def main(arguments: list[str] | None = None, log: Path = Path(TERMINATION_LOG)) -> int:
    """Check each ``FOLDER=PATH`` and report the first that is wrong."""
    for argument in sys.argv[1:] if arguments is None else arguments:
        folder, _, path = argument.partition("=")
        found = finding(Path(folder), path)
        if found is not None:
            log.write_text(json.dumps(found))
            print(found["message"], file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
