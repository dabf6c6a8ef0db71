"""Suppression ratio of interleaved SASE delivery, from the X-ray gas monitors of two or more beamlines.

Bunches that are to lase in one undulator only still give some light in the other. In each beamline the pulses
that lase (on) and those that should not (off) are compared: R = mean(off) / mean(on).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from panosc_analysis.errors import InputError
from panosc_analysis.kernels import pulses as xgm
from panosc_analysis.kernels import ratio as statistics
from panosc_analysis.runs import euxfel
from panosc_analysis.workflows import Arrays, CheckedInput, Partition, PartitionOutput, Quantity, Result

NAME = "sase-delivery"
VERSION = "0.1.0"
TITLE = "SASE pulse delivery"
DESCRIPTION = (
    "Suppression ratio of interleaved SASE delivery from the X-ray gas monitors of several beamlines, "
    "with spread, standard error, Fieller interval and systematic uncertainty."
)
REPORT = "sase_delivery.ipynb"

KEY = "data.intensityTD"
DEFAULT_UNIT = "μJ"  # what EXtra-data gives where the file states units
MINIMUM_TRAINS = 10
MINIMUM_CONFIDENCE = 0.9
"""Of an inferred pattern; scatter about a single level reaches 0.64 (Gaussian) to 0.75 (uniform)."""
SIGNIFICANT = 3.0
"""Standard deviations that the off signal must have to be given as a value, not as a limit."""

Slot = Annotated[int, Field(ge=0, lt=2700)]


class Pattern(BaseModel):
    """The slots of a train that lase in a beamline, and those to compare with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: list[Slot] = Field(title="Slots that lase", min_length=1, max_length=2700)
    off: list[Slot] = Field(title="Slots that are suppressed", min_length=1, max_length=2700)

    @model_validator(mode="after")
    def _each_slot_once(self) -> Pattern:
        twice = sorted(slot for slot, times in Counter(self.on + self.off).items() if times > 1)
        if twice:
            raise ValueError(f"slots {twice} are named more than once")
        return self


class Parameters(BaseModel):
    """Parameters of sase-delivery."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: list[Annotated[str, Field(max_length=200)]] = Field(
        default=[],
        max_length=16,
        title="XGM sources",
        description="Needed only where a run has several XGMs, such as SA1_XTD2_XGM/XGM/DOOCS; empty: the only one.",
    )
    first_slot: int = Field(
        default=0,
        ge=0,
        lt=2700,
        title="First slot of the interleaved part",
        description="Slots of a train are counted from 0.",
    )
    slot_count: int = Field(
        default=20,
        ge=2,
        le=2700,
        title="Slots of the interleaved part",
        description="Among these slots the pattern is looked for.",
    )
    patterns: dict[str, Pattern] = Field(
        default={},
        max_length=16,
        title="On/off pattern by beamline",
        description="Such as {SA1: {on: [0, 2], off: [1, 3]}}; where none is given it is inferred from the data.",
    )
    bunches: int | None = Field(
        default=None,
        ge=1,
        lt=2700,
        title="Bunches per train",
        description="Slots behind them that do not hold the fill value measure the pedestal; empty: not known.",
    )
    baseline_uncertainty: float = Field(
        default=0.0,
        ge=0,
        title="Systematic uncertainty of the baseline",
        description="What is not known of the signal without beam.",
        json_schema_extra={"unit": DEFAULT_UNIT},
    )
    linearity_uncertainty: float = Field(
        default=0.0,
        ge=0,
        le=1,
        title="Systematic uncertainty of the linearity",
        description="Relative, of the small signals against the large ones; the common scale cancels in the ratio.",
    )
    confidence_level: float = Field(default=0.95, ge=0.5, le=0.999, title="Confidence level of intervals and limits")
    bootstrap_replicates: int = Field(default=1000, ge=100, le=100_000, title="Bootstrap resamplings")
    seed: int = Field(default=0, ge=0, lt=2**32, title="Seed of the bootstrap")
    trains_per_partition: int = Field(
        default=500,
        ge=1,
        le=1_000_000,
        title="Trains per Dask task",
        description="Changes how the work is split, not the result.",
        json_schema_extra={"unit": "trains"},
    )


@dataclass(frozen=True)
class Beamline:
    """One XGM in one run."""

    name: str
    run: Path
    source: str
    unit: str
    slots: int
    files: tuple[euxfel.FileTrains, ...]
    counts: euxfel.TrainCounts
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Delivery(CheckedInput):
    """The beamlines to compare."""

    beamlines: tuple[Beamline, ...]
    common_trains: int


@dataclass(frozen=True)
class TrainRange(Partition):
    """Some consecutive trains of one beamline; `first` and `last` are inclusive."""

    beamline: str
    source: str
    files: tuple[Path, ...]
    first: int
    last: int
    slots: int


# check and partition ---------------------------------------------------------------------------------------


def check(inputs: Sequence[Path], parameters: Parameters) -> Delivery:
    """Find the XGM of every run and make sure that the runs can be compared."""
    found: list[tuple[Path, str, Any, dict[str, Any]]] = []
    for path in inputs:
        run = euxfel.open_run(path)
        metadata = {key: value for key, value in _metadata(run).items()}
        found += [(path, source, run[source, KEY], metadata) for source in _choose(path, run, parameters.sources)]
    _require_known(parameters.sources, [source for _, source, _, _ in found])
    labels = _labels([source for _, source, _, _ in found])
    beamlines = tuple(
        Beamline(
            name=label,
            run=path,
            source=source,
            unit=data.units or DEFAULT_UNIT,
            slots=data.entry_shape[0],
            files=tuple(euxfel.files_of(data)),
            counts=euxfel.train_counts(data),
            metadata=metadata,
        )
        for label, (path, source, data, metadata) in zip(labels, found, strict=True)
    )
    _require_slots(beamlines, parameters)
    with_data = [set(data.drop_empty_trains().train_ids) for _, _, data, _ in found]
    common = len(set.intersection(*with_data))
    _require_trains(beamlines, with_data, common)
    return Delivery(
        files=tuple(euxfel.describe([file.path for beamline in beamlines for file in beamline.files])),
        first_train=min(min(ids) for ids in with_data),
        last_train=max(max(ids) for ids in with_data),
        beamlines=beamlines,
        common_trains=common,
    )


def partition(checked: Delivery, parameters: Parameters) -> list[TrainRange]:
    """Split each beamline into ranges of train ids; a range knows the files that hold it."""
    return [
        TrainRange(
            label=f"{beamline.name} trains {first} to {last}",
            beamline=beamline.name,
            source=beamline.source,
            files=tuple(file.path for file in beamline.files if file.first <= last and file.last >= first),
            first=first,
            last=last,
            slots=_slots_needed(beamline.name, beamline.source, parameters),
        )
        for beamline in checked.beamlines
        for first, last in _ranges(beamline.files, parameters.trains_per_partition)
    ]


def _ranges(files: Sequence[euxfel.FileTrains], size: int) -> list[tuple[int, int]]:
    """Cut the trains of `files` into ranges of `size` ids that leave out the gaps between files."""
    ranges: list[tuple[int, int]] = []
    start = 0
    for file in files:
        for first in range(max(start, file.first), file.last + 1, size):
            ranges.append((first, min(first + size - 1, file.last)))
        start = max(start, file.last + 1)
    return ranges


def _choose(path: Path, run: Any, wanted: Sequence[str]) -> list[str]:
    """Return the XGM sources of a run that are to be used."""
    sources = euxfel.sources_with(run, KEY)
    if not sources:
        others = sorted(run.instrument_sources)[:3]
        raise InputError(
            "SourceMissing",
            f"{path} has no XGM: no source in it writes {KEY} (it has {', '.join(others) or 'no fast data'}); "
            "choose a run that recorded one",
        )
    chosen = [source for source in sources if _is_named(source, wanted)] if wanted else sources
    if not chosen:
        raise InputError("SourceMissing", f"{path} has none of {', '.join(wanted)}: it has {', '.join(sources)}")
    if not wanted and len(sources) > 1:
        raise InputError(
            "InvalidParameters", f"{path} has several XGMs, {', '.join(sources)}: name those to use in `sources`"
        )
    return chosen


def _is_named(source: str, wanted: Sequence[str]) -> bool:
    return source in wanted or source.partition(":")[0] in wanted


def _require_known(wanted: Sequence[str], sources: Sequence[str]) -> None:
    for name in wanted:
        if not any(_is_named(source, [name]) for source in sources):
            raise InputError("SourceMissing", f"`sources` names {name}, which no input run has")


def _labels(sources: Sequence[str]) -> list[str]:
    """Short names: SA1 for SA1_XTD2_XGM/XGM/DOOCS:output, the device where that is not unique."""
    short = [re.split(r"[_/:]", source)[0] for source in sources]
    devices = [source.partition(":")[0].replace("/", "-") for source in sources]
    labels = [name if short.count(name) == 1 else device for name, device in zip(short, devices, strict=True)]
    if len(set(labels)) < len(labels):
        raise InputError("InvalidParameters", f"the inputs name {', '.join(sources)}: every XGM only once")
    return labels


def _explicit(name: str, source: str, parameters: Parameters) -> Pattern | None:
    """Return the pattern that the parameters give for a beamline, by its short name or its source."""
    names = (name, source, source.partition(":")[0])
    return next((parameters.patterns[key] for key in names if key in parameters.patterns), None)


def _slots_needed(name: str, source: str, parameters: Parameters) -> int:
    """Count the slots, from 0, that hold the interleaved part and the given pattern."""
    pattern = _explicit(name, source, parameters)
    named = max([*pattern.on, *pattern.off]) + 1 if pattern else 0
    return max(parameters.first_slot + parameters.slot_count, named)


def _require_slots(beamlines: Sequence[Beamline], parameters: Parameters) -> None:
    known = {key for line in beamlines for key in (line.name, line.source, line.source.partition(":")[0])}
    for name in parameters.patterns:
        if name not in known:
            names = ", ".join(beamline.name for beamline in beamlines)
            raise InputError("InvalidParameters", f"`patterns` names {name}: the inputs have {names}")
    for beamline in beamlines:
        needed = _slots_needed(beamline.name, beamline.source, parameters)
        if needed > beamline.slots:
            raise InputError(
                "InvalidParameters",
                f"the parameters name slot {needed - 1}, but {beamline.source} has slots 0 to {beamline.slots - 1}",
            )


def _require_trains(beamlines: Sequence[Beamline], with_data: Sequence[set[int]], common: int) -> None:
    for beamline, ids in zip(beamlines, with_data, strict=True):
        if len(ids) < MINIMUM_TRAINS:
            raise InputError(
                "SourceMissing",
                f"{beamline.run}: {beamline.source} wrote data for {len(ids)} trains, {MINIMUM_TRAINS} are needed",
            )
    if common < MINIMUM_TRAINS:
        ranges = "; ".join(
            f"{beamline.run.name} trains {min(ids)} to {max(ids)}"
            for beamline, ids in zip(beamlines, with_data, strict=True)
        )
        raise InputError(
            "InvalidParameters",
            f"the runs have {common} trains in common, {MINIMUM_TRAINS} are needed: choose runs that were taken at "
            f"the same time ({ranges})",
        )


def _metadata(run: Any) -> dict[str, Any]:
    """Return the few entries of a run's metadata that the report shows, as plain values."""
    metadata = run.run_metadata()
    return {
        key: value if isinstance(value, str) else int(value)
        for key in ("proposalNumber", "runNumber", "runType", "dataFormatVersion")
        if (value := metadata.get(key)) is not None
    }


# one partition, on a worker --------------------------------------------------------------------------------


def run_partition(part: TrainRange, parameters: Parameters) -> PartitionOutput:
    """Read the trains of one range and reduce each to what the statistics need."""
    start = perf_counter()
    train_id, energy = euxfel.read_trains(part.files, part.source, KEY, part.first, part.last)
    read = perf_counter()
    arrays = reduce_trains(train_id, energy, part.slots, parameters.bunches)
    return PartitionOutput(
        arrays={f"{part.beamline}/{name}": array for name, array in arrays.items()},
        read_seconds=read - start,
        compute_seconds=perf_counter() - read,
        bytes_read=energy.nbytes,
    )


def reduce_trains(
    train_id: NDArray[np.uint64], energy: NDArray[np.floating], slots: int, bunches: int | None
) -> dict[str, NDArray[Any]]:
    """Keep of each train the first `slots` slots, the number of used slots and the moments of its dark slots.

    Parameters
    ----------
    train_id, energy
        Shapes (rows,) and (rows, all slots), ascending; of a train with several rows the first is kept.
    slots
        Slots to keep, from 0.
    bunches
        Bunches per train, if known: dark slots are those behind them that hold no fill.
    """
    train_id, first = np.unique(train_id, return_index=True)
    repeated = energy.shape[0] - first.size
    if repeated:
        energy = energy[first]
    used = xgm.used_slots(energy)
    valid = np.isfinite(energy) & ~xgm.fill_mask(energy, used, bunches)
    dark = valid & (np.arange(energy.shape[1]) >= (energy.shape[1] if bunches is None else bunches))
    dark_moments = xgm.moments(energy, dark)
    return {
        "train_id": train_id,
        "energy": energy[:, :slots].copy(),
        "used": used,
        "dark_count": dark_moments.count,
        "dark_sum": dark_moments.sum,
        "dark_square": dark_moments.square,
        "slot_count": valid.sum(axis=0)[np.newaxis],
        "slot_sum": np.where(valid, energy, 0).sum(axis=0, dtype=np.float64)[np.newaxis],
        "repeated": np.array([repeated]),
    }


# merging and statistics ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trains:
    """All trains of one beamline, ascending."""

    beamline: Beamline
    train_id: NDArray[np.uint64]
    energy: NDArray[np.floating]
    """As recorded, shape (trains, slots kept)."""
    valid: NDArray[np.bool_]
    """False for fills and for what is not finite; same shape."""
    fills: NDArray[np.bool_]
    pedestal: xgm.Pedestal | None
    slot_mean: NDArray[np.float64]
    """Mean of every slot the XGM has, NaN where no train has a value."""
    repeated: int

    @property
    def subtracted(self) -> NDArray[np.floating]:
        """Energy without the pedestal."""
        return self.energy if self.pedestal is None else self.energy - self.pedestal.per_train[:, np.newaxis]


def merge(beamline: Beamline, outputs: Sequence[Arrays], bunches: int | None) -> Trains:
    """Put the outputs of all partitions of one beamline together, in order of train id."""
    prefix = f"{beamline.name}/"
    mine = [
        {name.removeprefix(prefix): array for name, array in output.items() if name.startswith(prefix)}
        for output in outputs
        if f"{prefix}train_id" in output
    ]
    rows: dict[str, NDArray[Any]] = {name: np.concatenate([output[name] for output in mine]) for name in mine[0]}
    order = np.argsort(rows["train_id"], kind="stable")
    energy = rows["energy"][order]
    dark = xgm.Moments(rows["dark_count"][order], rows["dark_sum"][order], rows["dark_square"][order])
    fills = xgm.fill_mask(energy, rows["used"][order], bunches)
    # Sums of doubles depend on their order, so they are added in an order that the partitions do not change.
    count, total = rows["slot_count"].sum(axis=0), np.sort(rows["slot_sum"], axis=0).sum(axis=0)
    return Trains(
        beamline=beamline,
        train_id=rows["train_id"][order],
        energy=energy,
        valid=np.isfinite(energy) & ~fills,
        fills=fills,
        pedestal=xgm.pedestal(dark),
        slot_mean=np.divide(total, count, out=np.full(count.size, np.nan), where=count > 0),
        repeated=int(rows["repeated"].sum()),
    )


@dataclass(frozen=True)
class OnOff:
    """The pattern that is used for a beamline."""

    on: tuple[int, ...]
    off: tuple[int, ...]
    origin: str
    """`given` or `inferred`."""
    confidence: float
    """Of the pattern that the data show."""


def find_pattern(trains: Trains, parameters: Parameters) -> OnOff:
    """Take the pattern given in the parameters, or the one that the data show.

    Raises
    ------
    InputError
        InvalidParameters: the data show no two levels, the pattern is the wrong way round, or a slot of it holds the
        fill value.
    """
    name = trains.beamline.name
    given = _explicit(name, trains.beamline.source, parameters)
    first, stop = parameters.first_slot, parameters.first_slot + parameters.slot_count
    compared = sorted([*given.on, *given.off]) if given else list(range(first, stop))
    filled = [slot for slot in compared if trains.valid[:, slot].mean() > 0.5]
    unfilled = sorted(set(compared) - set(filled))
    if given and unfilled:
        raise InputError("InvalidParameters", f"{name}: slots {unfilled} of the pattern hold no pulse in most trains")
    _require_pulses(trains, filled)
    if len(filled) < 2:
        raise InputError("InvalidParameters", f"{name}: fewer than two of slots {first} to {stop - 1} hold pulses")
    slot_mean = np.mean(trains.energy[:, filled], axis=0, where=trains.valid[:, filled], dtype=np.float64)
    levels = xgm.two_levels(slot_mean)
    on = tuple(filled[index] for index in levels.on)
    off = tuple(filled[index] for index in levels.off)
    if given:
        if slot_mean[[filled.index(slot) for slot in given.on]].mean() <= (
            slot_mean[[filled.index(slot) for slot in given.off]].mean()
        ):
            raise InputError(
                "InvalidParameters",
                f"{name}: the slots given as on carry less than those given as off: swap them in `patterns` "
                f"(the data show on {list(on)})",
            )
        return OnOff(tuple(sorted(given.on)), tuple(sorted(given.off)), "given", levels.confidence)
    if levels.confidence < MINIMUM_CONFIDENCE:
        raise InputError(
            "InvalidParameters",
            f"{name}: slots {first} to {stop - 1} do not show two levels (confidence {levels.confidence:.2f}, "
            f"{MINIMUM_CONFIDENCE} needed): give the pattern in `patterns`",
        )
    return OnOff(on, off, "inferred", levels.confidence)


def _require_pulses(trains: Trains, slots: Sequence[int]) -> None:
    """Refuse slots that nearly always hold exactly the fill value though later slots are filled."""
    for slot in slots:
        if (trains.energy[:, slot] == xgm.FILL).mean() > 0.5:
            raise InputError(
                "InvalidParameters",
                f"{trains.beamline.name}: slot {slot} holds the fill value 1.0 in most trains, before the last "
                "pulse: no bunch was there; leave it out by giving `patterns`",
            )


@dataclass(frozen=True)
class Statistics:
    """What one beamline gives; arrays are per aligned train."""

    figures: dict[str, Any]
    table: dict[str, NDArray[Any]]
    columns: NDArray[np.float64]
    """Sum and count of on, then of off, shape (aligned trains, 4): what the bootstrap draws."""
    ratio: float
    standard_error: float


def analyse(trains: Trains, common: NDArray[np.uint64], parameters: Parameters) -> Statistics:
    """All figures of one beamline: the published ones from all its trains, the others from the common trains."""
    pattern = find_pattern(trains, parameters)
    on_slots, off_slots = list(pattern.on), list(pattern.off)
    aligned = np.isin(trains.train_id, common, assume_unique=True)
    energy, valid = trains.subtracted[aligned], trains.valid[aligned]
    on = xgm.moments(energy[:, on_slots], valid[:, on_slots])
    off = xgm.moments(energy[:, off_slots], valid[:, off_slots])
    means = statistics.block_means(on, off)
    if means.on <= SIGNIFICANT * np.sqrt(means.var_on):
        raise InputError(
            "InvalidParameters", f"{trains.beamline.name}: the slots taken as on {on_slots} carry no signal"
        )
    columns = np.column_stack([on.sum, on.count, off.sum, off.count]).astype(np.float64)
    replicates = _ratios(statistics.bootstrap_sums(columns, parameters.bootstrap_replicates, parameters.seed))
    standard_error = float(replicates.std(ddof=1))
    train_ratio = off.mean / on.mean
    whole = train_ratio[np.isfinite(train_ratio)]
    published = statistics.published_trains(trains.energy[:, on_slots], trains.energy[:, off_slots])
    figures = {
        "name": trains.beamline.name,
        "run": str(trains.beamline.run),
        "source": trains.beamline.source,
        "unit": trains.beamline.unit,
        "metadata": trains.beamline.metadata,
        "pattern": asdict(pattern),
        "counts": _counts(trains, aligned, on_slots + off_slots, train_ratio),
        "pedestal": _pedestal(trains.pedestal),
        "published": _published(trains, published, on_slots, off_slots),
        "means": {
            "on": _quantity(means.on, np.sqrt(means.var_on), trains.beamline.unit),
            "off": _quantity(means.off, np.sqrt(means.var_off), trains.beamline.unit),
        },
        "ratioOfMeans": _ratio_of_means(means, on, off, replicates, parameters),
        "ratioOfTrains": _ratio_of_trains(whole, parameters),
        "significance": _significance(means, trains.pedestal, parameters),
        "systematic": _systematic(means, parameters),
        "perPulse": _per_pulse(energy, valid, on, off_slots),
    }
    figures |= _suppression(figures)
    return Statistics(
        figures=figures,
        table=_table(trains, aligned, on, off, published),
        columns=columns,
        ratio=means.ratio,
        standard_error=standard_error,
    )


def _ratios(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """R of each row of sums: on, its count, off, its count."""
    return (sums[:, 2] / sums[:, 3]) / (sums[:, 0] / sums[:, 1])


def _counts(
    trains: Trains, aligned: NDArray[np.bool_], slots: Sequence[int], ratio: NDArray[np.float64]
) -> dict[str, int]:
    fills = trains.fills[:, slots]
    not_finite = ~np.isfinite(trains.energy[:, slots])
    known = trains.beamline.counts
    return {
        "trains": known.trains,
        "withoutData": known.without_data,
        "suspect": known.suspect,
        "rows": trains.train_id.size,
        "repeatedRows": trains.repeated,
        "notInOtherRuns": int((~aligned).sum()),
        "aligned": int(aligned.sum()),
        "fills": int(fills.sum()),
        "trainsWithFills": int(fills.any(axis=1).sum()),
        "notFinite": int(not_finite.sum()),
        "withoutRatio": int((~np.isfinite(ratio)).sum()),
        "inverted": int((ratio > 1).sum()),
    }


def _pedestal(pedestal: xgm.Pedestal | None) -> dict[str, Any] | str:
    if pedestal is None:
        return "not measured"
    return {
        "mean": pedestal.mean,
        "standardError": pedestal.standard_error,
        "noise": pedestal.noise,
        "slots": pedestal.slots,
        "trainsWithout": pedestal.trains_without,
    }


def _published(
    trains: Trains, table: statistics.PublishedTrains, on: Sequence[int], off: Sequence[int]
) -> dict[str, Any]:
    """Return the figures of the published notebook, from every row, nothing masked, aligned or subtracted."""
    overall = statistics.published_ratio(trains.energy[:, on], trains.energy[:, off])
    ratio = table.ratio[np.isfinite(table.ratio)]
    return {
        "ratio": overall.ratio,
        "spread": overall.spread,
        "meanOn": overall.mean_on,
        "stdOn": overall.std_on,
        "meanOff": overall.mean_off,
        "stdOff": overall.std_off,
        "trains": int(ratio.size),
        "trainRatio": {
            "mean": float(ratio.mean()),
            "sd": float(ratio.std()),
            "median": float(np.median(ratio)),
            "minimum": float(ratio.min()),
            "maximum": float(ratio.max()),
        },
    }


def _ratio_of_means(
    means: statistics.Means,
    on: xgm.Moments,
    off: xgm.Moments,
    replicates: NDArray[np.float64],
    parameters: Parameters,
) -> dict[str, Any]:
    naive = statistics.naive_standard_error(on, off)
    standard_error = float(replicates.std(ddof=1))
    return {
        "value": means.ratio,
        "standardError": standard_error,
        "interval": _interval(statistics.percentile_interval(replicates, parameters.confidence_level)),
        "deltaStandardError": statistics.delta_standard_error(means),
        "naiveStandardError": naive,
        "fieller": _interval(statistics.fieller_interval(means, parameters.confidence_level)),
    }


def _ratio_of_trains(ratio: NDArray[np.float64], parameters: Parameters) -> dict[str, Any]:
    medians = statistics.bootstrap_median(ratio, parameters.bootstrap_replicates, parameters.seed)
    sd = float(ratio.std(ddof=1))
    return {
        "mean": _quantity(ratio.mean(), sd / np.sqrt(ratio.size)),
        "median": _quantity(np.median(ratio), medians.std(ddof=1)),
        "sd": sd,
    }


def _significance(
    means: statistics.Means, pedestal: xgm.Pedestal | None, parameters: Parameters
) -> dict[str, Any]:
    """Judge whether the off signal stands out of what is known of zero; a limit is given where it does not."""
    sigma = float(
        np.sqrt(
            means.var_off
            + (pedestal.standard_error**2 if pedestal else 0.0)
            + parameters.baseline_uncertainty**2
        )
    )
    significant = means.off >= SIGNIFICANT * sigma
    error = float(np.hypot(statistics.delta_standard_error(means), parameters.baseline_uncertainty / means.on))
    limit = statistics.upper_limit(means.ratio, error, parameters.confidence_level)
    return {
        "offOverSigma": means.off / sigma,
        "significant": bool(significant),
        "upperLimit": None if significant else limit,
    }


def _systematic(means: statistics.Means, parameters: Parameters) -> dict[str, float]:
    """dR/db = (R - 1)/m_on for a baseline b common to on and off; the XGM's scale cancels."""
    baseline = parameters.baseline_uncertainty * abs(1 - means.ratio) / means.on
    linearity = parameters.linearity_uncertainty * abs(means.ratio)
    return {"baseline": baseline, "linearity": linearity, "total": float(np.hypot(baseline, linearity))}


def _per_pulse(
    energy: NDArray[np.floating], valid: NDArray[np.bool_], on: xgm.Moments, off_slots: Sequence[int]
) -> list[dict[str, Any]]:
    """R_k = mean of off slot k / mean of all on pulses, with its standard error."""
    per_pulse = []
    for slot in off_slots:
        means = statistics.block_means(on, xgm.moments(energy[:, [slot]], valid[:, [slot]]))
        per_pulse.append(
            {"slot": slot, "ratio": means.ratio, "standardError": statistics.delta_standard_error(means)}
        )
    return per_pulse


def _suppression(figures: dict[str, Any]) -> dict[str, Any]:
    """1/R and -10 log10 R with the Fieller interval carried over; None where a side is unbounded."""
    ratio = figures["ratioOfMeans"]
    value, error = ratio["value"], ratio["standardError"]
    low, high = ratio["fieller"]["low"], ratio["fieller"]["high"]
    positive = value > 0
    return {
        "suppressionFactor": {
            "value": 1 / value if positive else None,
            "standardError": error / value**2 if positive else None,
            "low": 1 / high if high and high > 0 else None,
            "high": 1 / low if low and low > 0 else None,
        },
        "suppression": {
            "value": statistics.decibel(value) if positive else None,
            "standardError": 10 / np.log(10) * error / value if positive else None,
            "low": statistics.decibel(high) if high and high > 0 else None,
            "high": statistics.decibel(low) if low and low > 0 else None,
            "unit": "dB",
        },
    }


def _table(
    trains: Trains,
    aligned: NDArray[np.bool_],
    on: xgm.Moments,
    off: xgm.Moments,
    published: statistics.PublishedTrains,
) -> dict[str, NDArray[Any]]:
    """Columns of one row per train with data; what is known of aligned trains only is NaN elsewhere."""

    def spread_out(values: NDArray[np.float64]) -> NDArray[np.float64]:
        column = np.full(trains.train_id.size, np.nan)
        column[aligned] = values
        return column

    return {
        "train_id": trains.train_id,
        "energy": trains.energy,
        "aligned": aligned,
        "fills": trains.fills.sum(axis=1),
        "pedestal": np.full(trains.train_id.size, np.nan) if trains.pedestal is None else trains.pedestal.per_train,
        "mean_on": spread_out(on.mean),
        "mean_off": spread_out(off.mean),
        "ratio": spread_out(off.mean / on.mean),
        "published/mean_on": published.mean_on,
        "published/std_on": published.std_on,
        "published/mean_off": published.mean_off,
        "published/std_off": published.std_off,
        "published/ratio": published.ratio,
        "published/spread": published.spread,
        "slot_mean": trains.slot_mean,
    }


def compare(first: Statistics, second: Statistics, parameters: Parameters) -> dict[str, Any]:
    """R of one beamline over R of another, from the trains that both have.

    Trains are drawn together for both, so what a train does to both beamlines is in the combined error.
    """
    from scipy.stats import norm

    sums = statistics.bootstrap_sums(
        np.hstack([first.columns, second.columns]), parameters.bootstrap_replicates, parameters.seed
    )
    of, to = _ratios(sums[:, :4]), _ratios(sums[:, 4:])
    difference = first.ratio - second.ratio
    difference_error = float((of - to).std(ddof=1))
    relative = np.hypot(first.standard_error / first.ratio, second.standard_error / second.ratio)
    return {
        "of": first.figures["name"],
        "to": second.figures["name"],
        "trains": first.columns.shape[0],
        "value": first.ratio / second.ratio,
        "standardError": float((of / to).std(ddof=1)),
        "interval": _interval(statistics.percentile_interval(of / to, parameters.confidence_level)),
        "independentStandardError": float(abs(first.ratio / second.ratio) * relative),
        "difference": _quantity(difference, difference_error),
        "equality": {
            "z": difference / difference_error,
            "pValue": float(2 * norm.sf(abs(difference) / difference_error)),
        },
    }


def finish(checked: Delivery, outputs: Sequence[Arrays], parameters: Parameters, folder: Path) -> Result:
    """Merge, compute all figures, and write the table of trains, `trains.h5`, into `folder`."""
    lines = [merge(beamline, outputs, parameters.bunches) for beamline in checked.beamlines]
    common = lines[0].train_id
    for trains in lines[1:]:
        common = np.intersect1d(common, trains.train_id, assume_unique=True)
    found = [analyse(trains, common, parameters) for trains in lines]
    comparisons = [compare(first, second, parameters) for first, second in combinations(found, 2)]
    _write_table(folder / "trains.h5", found)
    return Result(
        summary=_summary(found, comparisons, len(common)),
        results={
            "beamlines": [statistics_.figures for statistics_ in found],
            "comparisons": comparisons,
            "commonTrains": len(common),
        },
    )


def _summary(
    found: Sequence[Statistics], comparisons: Sequence[dict[str, Any]], common: int
) -> dict[str, Quantity]:
    summary: dict[str, Quantity] = {}
    for line in found:
        name, limit = line.figures["name"], line.figures["significance"]["upperLimit"]
        if limit is not None:
            summary[f"upperLimit{name}"] = Quantity(limit, None)
            continue
        total = float(np.hypot(line.standard_error, line.figures["systematic"]["total"]))
        suppression = line.figures["suppression"]
        summary[f"ratio{name}"] = Quantity(line.ratio, total)
        summary[f"suppression{name}"] = Quantity(
            suppression["value"], suppression["standardError"] * total / line.standard_error, "dB"
        )
    limited = {line.figures["name"] for line in found if line.figures["significance"]["upperLimit"] is not None}
    for pair in comparisons:
        if not limited & {pair["of"], pair["to"]}:
            summary[f"ratio{pair['of']}Over{pair['to']}"] = Quantity(pair["value"], pair["standardError"])
    return summary | {"commonTrains": Quantity(common, 0.0)}


def _write_table(path: Path, found: Sequence[Statistics]) -> None:
    import h5py

    energies = {"energy", "pedestal", "mean_on", "mean_off", "slot_mean"} | {
        f"published/{name}" for name in ("mean_on", "std_on", "mean_off", "std_off")
    }
    with h5py.File(path, "w") as file:
        for line in found:
            group = file.create_group(line.figures["name"])
            group.attrs["source"] = line.figures["source"]
            for name, column in line.table.items():
                group[name] = column
                if name in energies:
                    group[name].attrs["units"] = line.figures["unit"]


def _interval(interval: statistics.Interval) -> dict[str, Any]:
    """As JSON, which has no infinity."""
    return {
        "low": interval.low if np.isfinite(interval.low) else None,
        "high": interval.high if np.isfinite(interval.high) else None,
        "bounded": interval.bounded,
    }


def _quantity(value: Any, uncertainty: Any, unit: str = "") -> dict[str, Any]:
    return asdict(Quantity(float(value), float(uncertainty), unit))
