"""What an AnalysisJob's driver tells: its job description, its progress, and its last words.

The driver runs the user's workflow and has no rights in the cluster; whatever it says is bounded here before it may
enter a status.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from panosc_operator.api.job import Figure, Progress, Provenance, Result, Timing

BAD_INPUT_EXIT = 2
"""The driver's exit code when the input or parameters are wrong: another try would end the same way."""

_MAX_FIGURES, _MAX_RESULTS, _MAX_WORKERS, _MAX_VERSIONS = 32, 50, 64, 32


def _first(limit: int) -> Callable[[Any], Any]:
    """Return a function that cuts a list or map to what a status may hold."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return dict(islice(value.items(), limit))
        return value[:limit] if isinstance(value, list) else value

    return cut


def _cut_provenance(value: Any) -> Any:
    limits = {"workers": _first(_MAX_WORKERS), "versions": _first(_MAX_VERSIONS)}
    return value | {name: cut(value.get(name)) for name, cut in limits.items()} if isinstance(value, dict) else value


def _one_of_each_name(results: Iterable[Result]) -> tuple[Result, ...]:
    return tuple({result.name: result for result in results}.values())


def _storable(value: object) -> bool:
    """Whether the API server can store it: JSON has no NaN, and its integers have 64 bits."""
    if isinstance(value, Mapping):
        return all(_storable(item) for item in value.values())
    if isinstance(value, tuple):
        return all(_storable(item) for item in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


class _Words(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    @model_validator(mode="after")
    def _only_what_can_be_stored(self) -> Self:
        if not _storable(self.model_dump()):
            raise ValueError("a number is not finite or too large")
        return self


class Report(_Words):
    """One answer of ``/progress``."""

    progress: Progress = Progress()
    timing: Timing = Timing()


class _Manifest(_Words):
    path: str = Field("", max_length=1024)
    sha256: str | None = Field(None, max_length=64)


class LastWords(_Words):
    """The driver's termination message."""

    outcome: str
    reason: str = Field("Failed", min_length=1, max_length=63)
    message: str = Field("", max_length=2048)
    summary: Annotated[dict[str, Figure], BeforeValidator(_first(_MAX_FIGURES))] = {}
    progress: Progress | None = None
    timing: Timing | None = None
    results: Annotated[
        tuple[Result, ...], BeforeValidator(_first(_MAX_RESULTS)), AfterValidator(_one_of_each_name)
    ] = ()
    provenance: Annotated[Provenance, BeforeValidator(_cut_provenance)] = Provenance()
    manifest: _Manifest = _Manifest()

    @property
    def complete(self) -> bool:
        """Whether the output is committed."""
        return self.outcome == "Complete"


def parse_last_words(text: str) -> LastWords | None:
    """Return the termination message, or ``None`` if it is not one (a crash leaves the end of the log instead)."""
    try:
        return LastWords.model_validate_json(text, extra="ignore")
    except ValidationError:
        return None


def parse_report(raw: object) -> Report | None:
    """Return an answer of ``/progress``, or ``None`` if it is not one."""
    try:
        return Report.model_validate(raw, extra="ignore")
    except ValidationError:
        return None


@dataclass(frozen=True)
class Description:
    """What the driver is told, as JSON in its environment."""

    name: str
    namespace: str
    uid: str
    run: int
    workflow: str
    version: str
    parameters: Mapping[str, Any]
    inputs: tuple[tuple[str, int, str], ...]
    """Proposal, run number and folder of each run."""
    output: str
    on_exists: str
    scheduler: str
    minimum_workers: int
    maximum_workers: int
    image: str

    def to_json(self) -> str:
        """Return the JSON, the same for the same content."""
        return json.dumps(
            {
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
                "run": self.run,
                "workflow": {"name": self.workflow, "version": self.version},
                "parameters": self.parameters,
                "inputs": [{"proposal": proposal, "run": run, "path": path} for proposal, run, path in self.inputs],
                "output": {"path": self.output, "onExists": self.on_exists},
                "scheduler": self.scheduler,
                "workers": {"minimum": self.minimum_workers, "maximum": self.maximum_workers},
                "image": self.image,
            },
            sort_keys=True,
        )
