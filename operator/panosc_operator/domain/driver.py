"""What an AnalysisJob's driver tells: its job description, its progress, and its last words.

The driver runs the user's workflow and has no rights in the cluster; whatever it says is bounded here before it may
enter a status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from panosc_operator.api.job import Figure, Progress, Provenance, Result, Timing

BAD_INPUT_EXIT = 2
"""The driver's exit code when the input or parameters are wrong: another try would end the same way."""

_MAX_FIGURES, _MAX_RESULTS, _MAX_WORKERS, _MAX_VERSIONS = 32, 50, 64, 32


class _Words(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="ignore")


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
    reason: str = Field("", max_length=63)
    message: str = Field("", max_length=2048)
    summary: dict[str, Figure] = {}
    progress: Progress | None = None
    timing: Timing | None = None
    results: tuple[Result, ...] = ()
    provenance: Provenance = Provenance()
    manifest: _Manifest = _Manifest()

    @property
    def complete(self) -> bool:
        """Whether the output is committed."""
        return self.outcome == "Complete"


def parse_last_words(text: str) -> LastWords | None:
    """Return the termination message, or ``None`` if it is not one (a crash leaves the end of the log instead)."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            return None
        return LastWords.model_validate(_bounded(raw))
    except (ValueError, ValidationError):
        return None


def _bounded(raw: dict[str, Any]) -> dict[str, Any]:
    """Cut the lists to what a status may hold, and keep of each entry what the status has a field for."""

    def known(model: type[BaseModel], value: Mapping[str, Any]) -> dict[str, Any]:
        names = {field.alias or name for name, field in model.model_fields.items()}
        return {key: item for key, item in value.items() if key in names}

    cut = dict(raw)
    cut["summary"] = {
        str(name): known(Figure, figure) for name, figure in list(raw.get("summary", {}).items())[:_MAX_FIGURES]
    }
    cut["results"] = [known(Result, result) for result in raw.get("results", [])[:_MAX_RESULTS]]
    provenance = known(Provenance, raw.get("provenance") or {})
    if "workers" in provenance:
        provenance["workers"] = provenance["workers"][:_MAX_WORKERS]
    if "versions" in provenance:
        provenance["versions"] = dict(list(provenance["versions"].items())[:_MAX_VERSIONS])
    cut["provenance"] = provenance
    for name, model in (("progress", Progress), ("timing", Timing)):
        if isinstance(raw.get(name), dict):
            cut[name] = known(model, raw[name])
    return cut


def parse_report(raw: object) -> Report | None:
    """Return an answer of ``/progress``, or ``None`` if it is not one."""
    try:
        return Report.model_validate(_bounded(raw)) if isinstance(raw, dict) else None
    except (ValueError, ValidationError):
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
