"""Suppression ratio of interleaved SASE delivery, from the X-ray gas monitors of two or more beamlines.

Bunches that are to lase in one undulator only still give some light in the other. In each beamline the pulses
that lase (on) and those that should not (off) are compared: R = mean(off) / mean(on).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
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
from panosc_analysis.quantity import Quantity
from panosc_analysis.runs import euxfel
from panosc_analysis.workflows import Arrays, CheckedInput, Partition, PartitionOutput, Result

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
        default=1000,
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
        metadata = _metadata(run)
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
        first_train=int(min(min(ids) for ids in with_data)),
        last_train=int(max(max(ids) for ids in with_data)),
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
    used = xgm.used_slots(energy[:, :bunches])
    width = max(int(xgm.used_slots(energy).max(initial=0)), slots)  # all that is behind is fill
    all_slots, energy = energy.shape[1], energy[:, :width]
    valid = np.isfinite(energy) & ~xgm.fill_mask(energy, used)
    dark = slice(width if bunches is None else bunches, None)
    dark_moments = xgm.moments(energy[:, dark], valid[:, dark])
    slot_count, slot_sum = np.zeros((1, all_slots), np.int64), np.zeros((1, all_slots))
    slot_count[0, :width] = valid.sum(axis=0)
    slot_sum[0, :width] = np.where(valid, energy, 0).sum(axis=0, dtype=np.float64)
    return {
        "train_id": train_id,
        "energy": energy[:, :slots].copy(),
        "used": used,
        "dark_count": dark_moments.count,
        "dark_sum": dark_moments.sum,
        "dark_square": dark_moments.square,
        "slot_count": slot_count,
        "slot_sum": slot_sum,
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


def merge(beamline: Beamline, outputs: Sequence[Arrays]) -> Trains:
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
    fills = xgm.fill_mask(energy, rows["used"][order])
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
    slot_mean = trains.slot_mean[filled]
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
class Aligned:
    """One beamline in the trains that all beamlines have, sorted into on and off."""

    trains: Trains
    pattern: OnOff
    chosen: NDArray[np.bool_]
    """Which rows of `trains` are aligned."""
    energy: NDArray[np.floating]
    """Without the pedestal, shape (aligned trains, slots kept)."""
    valid: NDArray[np.bool_]
    on: xgm.Moments
    off: xgm.Moments
    means: statistics.Means

    @property
    def columns(self) -> NDArray[np.float64]:
        """Sum and count of on, then of off, shape (aligned trains, 4): what the bootstrap draws."""
        return np.column_stack([self.on.sum, self.on.count, self.off.sum, self.off.count]).astype(np.float64)

    @property
    def ratio(self) -> NDArray[np.float64]:
        """R_t of each aligned train."""
        return self.off.mean / self.on.mean


def align(trains: Trains, common: NDArray[np.uint64], parameters: Parameters) -> Aligned:
    """Keep the common trains of a beamline, subtract the pedestal, and sum up on and off.

    Raises
    ------
    InputError
        InvalidParameters: the on pulses carry no signal, or `find_pattern` refuses.
    """
    pattern = find_pattern(trains, parameters)
    chosen = np.isin(trains.train_id, common, assume_unique=True)
    energy, valid = trains.subtracted[chosen], trains.valid[chosen]
    on, off = (xgm.moments(energy[:, list(slots)], valid[:, list(slots)]) for slots in (pattern.on, pattern.off))
    means = statistics.block_means(on, off)
    if means.on <= SIGNIFICANT * np.sqrt(means.var_on):
        raise InputError(
            "InvalidParameters",
            f"{trains.beamline.name}: the slots taken as on, {list(pattern.on)}, carry no signal: give `patterns`",
        )
    return Aligned(trains, pattern, chosen, energy, valid, on, off, means)


def figures_of(line: Aligned, replicates: NDArray[np.float64], parameters: Parameters) -> dict[str, Any]:
    """All figures of one beamline: the published ones from all its trains, the others from the common trains.

    Parameters
    ----------
    replicates
        Bootstrap replicates of R.
    """
    trains, means = line.trains, line.means
    ratio = _ratio_of_means(line, replicates, parameters)
    return {
        "name": trains.beamline.name,
        "run": str(trains.beamline.run),
        "source": trains.beamline.source,
        "unit": trains.beamline.unit,
        "metadata": trains.beamline.metadata,
        "pattern": {**asdict(line.pattern), "on": list(line.pattern.on), "off": list(line.pattern.off)},
        "counts": _counts(line),
        "pedestal": _pedestal(trains.pedestal),
        "published": _published(line),
        "means": {
            "on": _quantity(means.on, np.sqrt(means.var_on), trains.beamline.unit),
            "off": _quantity(means.off, np.sqrt(means.var_off), trains.beamline.unit),
        },
        "ratioOfMeans": ratio,
        "ratioOfTrains": _ratio_of_trains(line.ratio),
        "significance": _significance(means, trains.pedestal, parameters),
        "systematic": _systematic(means, parameters),
        "suppressionFactor": _factor(ratio),
        "suppression": _decibels(ratio),
        "perPulse": _per_pulse(line),
    }


def _counts(line: Aligned) -> dict[str, int]:
    trains, slots = line.trains, [*line.pattern.on, *line.pattern.off]
    fills, ratio = trains.fills[:, slots], line.ratio
    known = trains.beamline.counts
    return {
        "trains": known.trains,
        "withoutData": known.without_data,
        "suspect": known.suspect,
        "rows": trains.train_id.size,
        "repeatedRows": trains.repeated,
        "notInOtherRuns": int((~line.chosen).sum()),
        "aligned": int(line.chosen.sum()),
        "fills": int(fills.sum()),
        "trainsWithFills": int(fills.any(axis=1).sum()),
        "notFinite": int((~np.isfinite(trains.energy[:, slots])).sum()),
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


def _published_trains(line: Aligned) -> statistics.PublishedTrains:
    energy = line.trains.energy
    return statistics.published_trains(energy[:, list(line.pattern.on)], energy[:, list(line.pattern.off)])


def _published(line: Aligned) -> dict[str, Any]:
    """Return the figures of the published notebook, from every row, nothing masked, aligned or subtracted."""
    energy = line.trains.energy
    overall = statistics.published_ratio(energy[:, list(line.pattern.on)], energy[:, list(line.pattern.off)])
    ratio = _finite(_published_trains(line).ratio)
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


def _ratio_of_means(line: Aligned, replicates: NDArray[np.float64], parameters: Parameters) -> dict[str, Any]:
    return {
        "value": line.means.ratio,
        "standardError": float(replicates.std(ddof=1)),
        "interval": _interval(statistics.percentile_interval(replicates, parameters.confidence_level)),
        "deltaStandardError": statistics.delta_standard_error(line.means),
        "naiveStandardError": statistics.naive_standard_error(line.on, line.off),
        "fieller": _interval(statistics.fieller_interval(line.means, parameters.confidence_level)),
    }


def _ratio_of_trains(ratio: NDArray[np.float64]) -> dict[str, Any]:
    finite = _finite(ratio)
    sd = float(finite.std(ddof=1))
    return {
        "mean": _quantity(finite.mean(), sd / np.sqrt(finite.size)),
        "median": _quantity(np.median(finite), statistics.median_standard_error(finite)),
        "sd": sd,
    }


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _significance(means: statistics.Means, pedestal: xgm.Pedestal | None, parameters: Parameters) -> dict[str, Any]:
    """Judge whether the off signal stands out of what is known of zero; a limit is given where it does not."""
    sigma = float(
        np.sqrt(means.var_off + (pedestal.standard_error**2 if pedestal else 0.0) + parameters.baseline_uncertainty**2)
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


def _per_pulse(line: Aligned) -> list[dict[str, Any]]:
    """R_k = mean of off slot k / mean of all on pulses, with its standard error."""
    per_pulse = []
    for slot in line.pattern.off:
        off = xgm.moments(line.energy[:, [slot]], line.valid[:, [slot]])
        means = statistics.block_means(line.on, off)
        error = statistics.delta_standard_error(means)
        per_pulse.append({"slot": slot, "ratio": means.ratio, "standardError": error})
    return per_pulse


def _factor(ratio: dict[str, Any]) -> dict[str, Any]:
    """1/R with the Fieller interval carried over; None where R is not positive or a side is unbounded."""
    value, error, (low, high) = ratio["value"], ratio["standardError"], _positive_sides(ratio)
    return {
        "value": 1 / value if value > 0 else None,
        "standardError": error / value**2 if value > 0 else None,
        "low": None if high is None else 1 / high,
        "high": None if low is None else 1 / low,
    }


def _decibels(ratio: dict[str, Any]) -> dict[str, Any]:
    """-10 log10 R, as `_factor`."""
    value, error, (low, high) = ratio["value"], ratio["standardError"], _positive_sides(ratio)
    return {
        "value": statistics.decibel(value) if value > 0 else None,
        "standardError": float(10 / np.log(10) * error / value) if value > 0 else None,
        "low": None if high is None else statistics.decibel(high),
        "high": None if low is None else statistics.decibel(low),
        "unit": "dB",
    }


def _positive_sides(ratio: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the sides of the Fieller interval, None where they are not positive numbers."""
    low, high = (side if side and side > 0 else None for side in (ratio["fieller"]["low"], ratio["fieller"]["high"]))
    return low, high


def compare(
    names: tuple[str, str],
    ratios: tuple[float, float],
    trains: int,
    replicates: tuple[NDArray[np.float64], NDArray[np.float64]],
    parameters: Parameters,
) -> dict[str, Any]:
    """R of one beamline over R of another, from the trains that both have.

    The replicates come from the same drawn trains, so what a train does to both beamlines is in the combined error. The
    Fieller interval is the one to use where the second R is hardly more than noise.
    """
    from scipy.special import ndtr

    (first, second), (of, to) = ratios, replicates
    difference, difference_error = first - second, float((of - to).std(ddof=1))
    relative = float(np.hypot(of.std(ddof=1) / first, to.std(ddof=1) / second))
    z = difference / difference_error
    (var_of, covariance), (_, var_to) = np.cov(of, to).tolist()
    fieller = statistics.Means(second, first, var_to, var_of, covariance, trains)
    return {
        "of": names[0],
        "to": names[1],
        "value": first / second,
        "standardError": float((of / to).std(ddof=1)),
        "interval": _interval(statistics.percentile_interval(of / to, parameters.confidence_level)),
        "fieller": _interval(statistics.fieller_interval(fieller, parameters.confidence_level)),
        "independentStandardError": abs(first / second) * relative,
        "difference": _quantity(difference, difference_error),
        "equality": {"z": z, "pValue": float(2 * ndtr(-abs(z)))},
    }


def finish(checked: Delivery, outputs: Sequence[Arrays], parameters: Parameters, folder: Path) -> Result:
    """Merge, compute all figures, and write the table of trains, `trains.h5`, into `folder`."""
    merged = [merge(beamline, outputs) for beamline in checked.beamlines]
    common = reduce(np.intersect1d, (trains.train_id for trains in merged))
    lines = [align(trains, common, parameters) for trains in merged]
    replicates = _replicates(lines, parameters)
    beamlines = [figures_of(line, drawn, parameters) for line, drawn in zip(lines, replicates, strict=True)]
    comparisons = [
        compare(
            (beamlines[i]["name"], beamlines[j]["name"]),
            (lines[i].means.ratio, lines[j].means.ratio),
            common.size,
            (replicates[i], replicates[j]),
            parameters,
        )
        for i, j in combinations(range(len(lines)), 2)
    ]
    _write_tables(folder / "trains.h5", lines)
    return Result(
        summary=_summary(beamlines, comparisons, common.size, parameters.confidence_level),
        results={"beamlines": beamlines, "comparisons": comparisons, "commonTrains": common.size},
    )


def _replicates(lines: Sequence[Aligned], parameters: Parameters) -> list[NDArray[np.float64]]:
    """Bootstrap replicates of every beamline's R, from the same drawn trains."""
    columns = np.hstack([line.columns for line in lines])
    sums = statistics.bootstrap_sums(columns, parameters.bootstrap_replicates, parameters.seed)
    return [
        (off / off_count) / (on / on_count)
        for on, on_count, off, off_count in sums.T.reshape(len(lines), 4, parameters.bootstrap_replicates)
    ]


def _summary(
    beamlines: Sequence[dict[str, Any]],
    comparisons: Sequence[dict[str, Any]],
    common: int,
    confidence_level: float,
) -> dict[str, Quantity]:
    """Value and total uncertainty (standard error and systematic) where there is a signal, else the limit."""
    summary: dict[str, Quantity] = {}
    for line in beamlines:
        name, ratio, decibels = line["name"], line["ratioOfMeans"], line["suppression"]
        if not line["significance"]["significant"]:
            note = f"upper limit, {confidence_level:.3g} confidence"
            summary[f"ratio{name}"] = Quantity(line["significance"]["upperLimit"], None, note=note)
            continue
        total = float(np.hypot(ratio["standardError"], line["systematic"]["total"]))
        summary[f"ratio{name}"] = Quantity(ratio["value"], total)
        summary[f"suppression{name}"] = Quantity(
            decibels["value"], decibels["standardError"] * total / ratio["standardError"], "dB"
        )
    significant = {line["name"] for line in beamlines if line["significance"]["significant"]}
    for pair in comparisons:
        if {pair["of"], pair["to"]} <= significant:
            summary[f"ratio{pair['of']}Over{pair['to']}"] = Quantity(pair["value"], pair["standardError"])
    return summary | {"commonTrains": Quantity(common, 0.0)}


def _table(line: Aligned) -> dict[str, NDArray[Any]]:
    """Columns of one row per train with data; what is known of aligned trains only is NaN elsewhere."""
    trains, published = line.trains, _published_trains(line)
    rows = trains.train_id.size

    def spread_out(values: NDArray[np.float64]) -> NDArray[np.float64]:
        column = np.full(rows, np.nan)
        column[line.chosen] = values
        return column

    return {
        "train_id": trains.train_id,
        "energy": trains.energy,
        "aligned": line.chosen,
        "fills": trains.fills.sum(axis=1),
        "pedestal": np.full(rows, np.nan) if trains.pedestal is None else trains.pedestal.per_train,
        "mean_on": spread_out(line.on.mean),
        "mean_off": spread_out(line.off.mean),
        "ratio": spread_out(line.ratio),
        **{f"published/{name}": column for name, column in vars(published).items()},
        "slot_mean": trains.slot_mean,
    }


def _write_tables(path: Path, lines: Sequence[Aligned]) -> None:
    import h5py

    pure = {"train_id", "aligned", "fills", "ratio", "published/ratio", "published/spread"}
    with h5py.File(path, "w") as file:
        for line in lines:
            beamline = line.trains.beamline
            group = file.create_group(beamline.name)
            group.attrs["source"] = beamline.source
            for name, column in _table(line).items():
                group[name] = column
                if name not in pure:
                    group[name].attrs["units"] = beamline.unit


def _interval(interval: statistics.Interval) -> dict[str, Any]:
    """As JSON, which has no infinity."""
    return {
        "low": interval.low if np.isfinite(interval.low) else None,
        "high": interval.high if np.isfinite(interval.high) else None,
        "bounded": interval.bounded,
    }


def _quantity(value: Any, uncertainty: Any, unit: str = "") -> dict[str, Any]:
    return asdict(Quantity(float(value), float(uncertainty), unit))
