"""Outputs that appear whole or not at all, and the manifest that records them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from panosc_analysis.errors import InputError

MANIFEST = "manifest.json"
RESULT = "result.json"


def sha256(path: Path) -> str:
    """Hash the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_hash(value: Any) -> str:
    """Hash a JSON value, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there is flushed to disk and then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    _flush(partial)
    partial.replace(path)
    _flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Commit:
    """A committed output folder."""

    path: Path
    manifest: dict[str, Any]
    result: dict[str, Any]

    @property
    def uid(self) -> str:
        """The job that committed it."""
        return str(self.manifest["job"]["uid"])


def find_commit(path: Path) -> Commit | None:
    """Return what was committed at `path`, or None where there is no folder with a manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        result = json.loads((path / RESULT).read_text(encoding="utf-8"))
        return Commit(path, manifest, result) if "uid" in manifest["job"] else None
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None


class Staging:
    """The folder in which a job's output grows, hidden beside its final place on the same file system.

    Its name holds the job's uid, so a driver that was killed and started again finds what was done, and two jobs with
    the same output do not meet.

    Parameters
    ----------
    final
        The output folder to be.
    uid
        The job's uid.
    """

    def __init__(self, final: Path, uid: str) -> None:
        self.final = final
        self.path = final.parent / f".{final.name}.{uid}.partial"
        self.work = self.path / ".work"

    def open(self, key: dict[str, Any]) -> None:
        """Make the folder, or keep it if it was begun for the same `key` (inputs, parameters, version).

        Raises
        ------
        InputError
            OutputNotWritable
        """
        marker = self.work / "key.json"
        try:
            if not marker.exists() or json.loads(marker.read_text()) != key:
                self.remove()
                self.work.mkdir(parents=True)
                write_json(marker, key)
        except OSError as error:
            raise InputError(
                "OutputNotWritable", f"{self.final.parent} cannot be written ({error.strerror}): choose another output"
            ) from error

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(self, job: dict[str, Any], replace: bool) -> Commit:
        """Write the manifest, flush everything and rename the folder into place.

        Parameters
        ----------
        job
            What the manifest says of the job; holds `uid`.
        replace
            Whether a folder at the final place is replaced; if not and there is one by now, OutputExists.
        """
        shutil.rmtree(self.work)
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        for file in files:
            _flush(file)
        manifest = {
            "job": job,
            "committedAt": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "files": [
                {"name": str(file.relative_to(self.path)), "bytes": file.stat().st_size, "sha256": sha256(file)}
                for file in files
            ],
        }
        write_json(self.path / MANIFEST, manifest)
        _flush(self.path)
        if self.final.exists() and not replace:
            raise InputError("OutputExists", f"{self.final} appeared while the job ran: choose another output")
        if self.final.exists():
            _exchange(self.path, self.final)
            self.remove()  # which now holds the old output
        else:
            self.path.rename(self.final)
        _flush(self.final.parent)
        commit = find_commit(self.final)
        assert commit is not None
        return commit


def _flush(path: Path) -> None:
    """Wait until a file's content or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; where the file system cannot, in two renames."""
    at_cwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_cwd, os.fsencode(new), at_cwd, os.fsencode(old), rename_exchange) == 0:
        return
    aside = new.with_name(f"{new.name}.old")
    old.rename(aside)
    new.rename(old)
    aside.rename(new)
