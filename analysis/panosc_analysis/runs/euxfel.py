"""Runs in the file layout of the European XFEL, read with EXtra-data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from panosc_analysis.errors import InputError, JobError

if TYPE_CHECKING:
    from extra_data import DataCollection, KeyData


def open_run(path: Path) -> DataCollection:
    """Open the run folder `path` without writing anything into it; suspect trains are left out.

    Raises
    ------
    InputError
        RunNotFound: there is no such folder, it may not be read, or it holds no HDF5 file.
    JobError
        RunUnreadable: one of its files cannot be opened.
    """
    try:
        files = sorted(file for file in path.iterdir() if file.suffix == ".h5" and file.stem != "overview")
    except FileNotFoundError:
        raise InputError("RunNotFound", f"{path} does not exist: check proposal and run number") from None
    except NotADirectoryError:
        raise InputError("RunNotFound", f"{path} is not a folder: give the run's folder, such as raw/r0008") from None
    except PermissionError:
        raise InputError("RunNotFound", f"{path} may not be read: ask for access to the proposal") from None
    if not files:
        raise InputError("RunNotFound", f"{path} holds no HDF5 file: check proposal and run number")
    return open_files(files)


def open_files(files: Sequence[Path]) -> DataCollection:
    """Open some files of one run; EXtra-data alone would leave out, with a note, what it cannot open."""
    from extra_data import DataCollection

    with redirect_stderr(StringIO()) as said:
        try:
            run = DataCollection.from_paths(
                [str(file) for file in files], inc_suspect_trains=False, is_single_run=True, parallelize=False
            )
        except Exception as error:
            raise JobError("RunUnreadable", f"{files[0].parent}: {said.getvalue() or error}".strip()) from error
    if len(run.files) != len(files):
        opened = {Path(file.filename).name for file in run.files}
        lost = next(file for file in files if file.name not in opened)
        raise JobError("RunUnreadable", f"{lost} cannot be opened as a file of a run: {_cause(said.getvalue())}")
    return run


def _cause(said: str) -> str:
    """Return the last of the lines that EXtra-data printed, without its brackets."""
    lines = said.strip().splitlines()
    return lines[-1].strip().strip("()").removeprefix("error was: ") if lines else "no reason given"


def sources_with(run: DataCollection, key: str) -> list[str]:
    """List the instrument sources of `run` that have `key`, sorted."""
    return sorted(source for source in run.instrument_sources if key in run.keys_for_source(source))


@dataclass(frozen=True)
class TrainCounts:
    """What a run holds of a source, in trains."""

    trains: int
    """Trains in the index."""
    without_data: int
    """Trains for which the source wrote nothing."""
    suspect: int
    """Trains left out because the index marks their id as doubtful."""


def train_counts(data: KeyData) -> TrainCounts:
    """Count trains of one key of one source."""
    known = set().union(*(file.train_ids.tolist() for file in data.files))
    return TrainCounts(
        trains=len(data.train_ids),
        without_data=int((data.data_counts(labelled=False) == 0).sum()),
        suspect=len(known.difference(data.train_ids)),
    )


@dataclass(frozen=True)
class FileTrains:
    """One file and the range of its train ids, both ends inclusive."""

    path: Path
    first: int
    last: int


def files_of(data: KeyData) -> list[FileTrains]:
    """List the files that hold a key, in order of their trains."""
    found = [
        FileTrains(Path(file.filename), int(file.train_ids.min()), int(file.train_ids.max()))
        for file in data.files
        if len(file.train_ids)
    ]
    return sorted(found, key=lambda file: (file.first, file.path.name))


def read_trains(
    files: Sequence[Path], source: str, key: str, first: int, last: int
) -> tuple[NDArray[np.uint64], NDArray[np.floating]]:
    """Read one key for the trains from `first` to `last`, inclusive.

    Returns
    -------
    Train ids, shape (rows,), ascending, and the data, shape (rows, ...). A train without data has no row; one
    with several entries has several.
    """
    if not files:
        raise ValueError("no file to read from")
    from extra_data import by_id

    with open_files(files) as run:
        data = run[source, key]
        if not any(first <= train <= last for train in data.train_ids):
            return np.empty(0, np.uint64), np.empty((0, *data.entry_shape), data.dtype)
        chosen = data.select_trains(by_id[first : last + 1])
        train_id, values = chosen.train_id_coordinates(), chosen.ndarray()
    order = np.argsort(train_id, kind="stable")
    if not (order == np.arange(order.size)).all():
        train_id, values = train_id[order], values[order]
    return train_id, values


@dataclass(frozen=True)
class InputFile:
    """A file as it was when it was read: enough to see later that it changed."""

    path: str
    bytes: int
    modified: float
    """Seconds since 1970, UTC."""


def describe(files: Sequence[Path]) -> list[InputFile]:
    """Record path, size and modification time of files."""
    status = [(file, file.stat()) for file in files]
    return [InputFile(str(file), info.st_size, info.st_mtime) for file, info in status]
