"""Workflows: what a job runs. Each is a module registered as entry point `panosc_analysis.workflows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from panosc_analysis.errors import InputError
from panosc_analysis.quantity import Quantity
from panosc_analysis.runs.euxfel import InputFile

Arrays = Mapping[str, NDArray[np.generic]]
"""What a partition found: small arrays by name."""


@dataclass(frozen=True)
class CheckedInput:
    """What `check` learnt of the input; a workflow derives its own from it."""

    files: tuple[InputFile, ...]
    first_train: int
    last_train: int


@dataclass(frozen=True)
class Partition:
    """The share of one Dask task; a workflow derives its own from it."""

    label: str
    """Names the partition in messages: `SA1 trains 10000 to 10499`."""


@dataclass(frozen=True)
class PartitionOutput:
    """What one Dask task hands back."""

    arrays: Arrays
    read_seconds: float
    compute_seconds: float
    bytes_read: int


@dataclass(frozen=True)
class Result:
    """What `finish` found."""

    summary: dict[str, Quantity]
    """The few figures a person asks for."""
    results: dict[str, Any]
    """All of them, as JSON."""


class Workflow(Protocol):
    """What a workflow module offers. Every function but `finish` is without side effects."""

    NAME: str
    VERSION: str
    TITLE: str
    DESCRIPTION: str
    REPORT: str
    """File name of the notebook in `panosc_analysis.reports`."""
    Parameters: type[BaseModel]

    def check(self, inputs: Sequence[Path], parameters: Any) -> CheckedInput:
        """Look at the run folders, quickly and without Dask; raise InputError for what cannot work."""

    def partition(self, checked: Any, parameters: Any) -> Sequence[Partition]:
        """Split the work; the result must not depend on how."""

    def run_partition(self, partition: Any, parameters: Any) -> PartitionOutput:
        """Read and compute one partition; called on a Dask worker, perhaps more than once."""

    def finish(self, checked: Any, outputs: Sequence[Arrays], parameters: Any, folder: Path) -> Result:
        """Merge the outputs, in any order, and write tables into `folder`."""


def names() -> list[str]:
    """Names of all workflows that are installed."""
    return sorted(_registered())


def load(name: str) -> Workflow:
    """Import the workflow `name`.

    Raises
    ------
    InputError
        InvalidParameters: there is none of that name.
    """
    registered = _registered()
    if name not in registered:
        raise InputError("InvalidParameters", f"no workflow {name!r}: there are {', '.join(sorted(registered))}")
    workflow: Workflow = registered[name].load()
    return workflow


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="panosc_analysis.workflows")}
