"""Two runs of XGM data with interleaved SASE delivery and a known suppression ratio.

The first 20 bunches of a train alternate: the even ones lase in SASE1, the odd ones in SASE3; bunches 20 to 69
lase in SASE3 only. Pulses that lase follow a gamma distribution; suppressed ones carry the ratio of its mean, a
term that all pulses of a train share, and a term of their own. The two runs were taken at the same time but
not started and stopped together, and each has one train without data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from extra_data.tests.mockdata import write_file
from extra_data.tests.mockdata.base import DeviceBase
from numpy.typing import NDArray

from panosc_analysis.errors import InputError
from panosc_analysis.kernels.pulses import FILL

SLOTS = 1000
FILES = 3
"""Sequence files per run."""
FIRST_TRAIN = 38227866
START = 1_513_000_000_000_000_000
"""Time of FIRST_TRAIN in ns since 1970; trains follow every 0.1 s."""


@dataclass(frozen=True)
class Beamline:
    """What one XGM sees, and the run it is written to. Energies in µJ."""

    run: int
    source: str
    ratio: float
    energy: float
    """Mean of a pulse that lases."""
    train_sigma: float
    """Scatter of suppressed pulses that a train's pulses share."""
    pulse_sigma: float
    """Scatter of suppressed pulses on top of it."""
    lasing: tuple[int, ...]
    first_train: int
    trains: int
    relative_width: float = 0.11
    """Of the gamma distribution."""
    bunches: int = 70
    pedestal: float = 0.0
    """Added to every slot that is not a fill."""
    dark_slots: int = 0
    """Slots behind the last bunch that measure the pedestal instead of holding the fill value."""
    short_trains: dict[int, int] = field(default_factory=dict)
    """Position of a train in the run -> its number of bunches, where it has fewer."""
    without_data: tuple[int, ...] = ()
    """Positions of trains for which the XGM wrote nothing."""
    suspect: tuple[int, ...] = ()
    """Positions of trains whose id the index marks as doubtful."""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"r{self.run:04d}"


def published_scheme(trains: int = 6296) -> tuple[Beamline, Beamline]:
    """Two beamlines with the scheme, the sizes and the statistics of the published example.

    Parameters
    ----------
    trains
        Trains of the first run. The second starts 16 trains earlier and is shorter in proportion (6236 of 6296).
    """
    return (
        Beamline(
            run=8,
            source="SA1_XTD2_XGM/XGM/DOOCS",
            ratio=0.04108,
            energy=1850.0,
            train_sigma=26.2,
            pulse_sigma=10.9,
            lasing=tuple(range(0, 20, 2)),
            first_train=FIRST_TRAIN,
            trains=trains,
            without_data=(trains // 2,),
        ),
        Beamline(
            run=9,
            source="SA3_XTD10_XGM/XGM/DOOCS",
            ratio=0.00521,
            energy=930.0,
            train_sigma=1.76,
            pulse_sigma=3.30,
            lasing=(*range(1, 20, 2), *range(20, 70)),
            first_train=FIRST_TRAIN - 16,
            trains=trains - round(trains * 60 / 6296),
            without_data=(trains // 3,),
        ),
    )


def energies(beamline: Beamline, generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw what the XGM writes: shape (trains, SLOTS), µJ."""
    trains, bunches = beamline.trains, beamline.bunches
    shape = 1 / beamline.relative_width**2
    energy = np.full((trains, SLOTS), FILL, dtype=np.float32)
    shared = generator.normal(0, beamline.train_sigma, (trains, 1))
    pulses = beamline.ratio * beamline.energy + shared + generator.normal(0, beamline.pulse_sigma, (trains, bunches))
    lasing = [slot for slot in beamline.lasing if slot < bunches]
    pulses[:, lasing] = generator.gamma(shape, beamline.energy / shape, (trains, len(lasing)))
    energy[:, :bunches] = pulses + beamline.pedestal
    if beamline.dark_slots:
        dark = generator.normal(beamline.pedestal, beamline.pulse_sigma, (trains, beamline.dark_slots))
        energy[:, bunches : bunches + beamline.dark_slots] = dark
    for train, used in beamline.short_trains.items():
        energy[train, used:bunches] = FILL
    return energy


class XGM(DeviceBase):  # type: ignore[misc]
    """The fast channel of an XGM, with the units that Karabo writes."""

    output_channels = ("output/data",)
    instrument_keys = (("intensityTD", "f4", (SLOTS,)),)

    def write_instrument(self, file: h5py.File) -> None:
        """Add the unit attributes to what the base class writes."""
        super().write_instrument(file)
        attributes = file[f"INSTRUMENT/{self.device_id}:output/data/intensityTD"].attrs
        attributes["metricPrefixEnum"] = np.array([14], dtype=np.int32)
        attributes["metricPrefixName"] = b"micro"
        attributes["metricPrefixSymbol"] = b"u"
        attributes["unitEnum"] = np.array([15], dtype=np.int32)
        attributes["unitName"] = b"joule"
        attributes["unitSymbol"] = b"J"


def write_run(folder: Path, beamline: Beamline, energy: NDArray[np.float32]) -> None:
    """Write a run folder in EuXFEL layout, split by train over `FILES` sequence files."""
    for sequence, rows in enumerate(np.array_split(np.arange(beamline.trains), FILES)):
        path = folder / f"RAW-R{beamline.run:04d}-DA01-S{sequence:05d}.h5"
        first_train = beamline.first_train + int(rows[0])
        write_file(str(path), [XGM(beamline.source)], len(rows), first_train, format_version="1.0")
        with h5py.File(path, "r+") as file:
            _fill(file, beamline, rows, energy)


def _fill(file: h5py.File, beamline: Beamline, rows: NDArray[np.intp], energy: NDArray[np.float32]) -> None:
    """Put the energies and times of the trains at positions `rows` into a file with empty datasets."""
    channel = f"{beamline.source}:output/data"
    train_id = beamline.first_train + rows
    written = ~np.isin(rows, beamline.without_data)
    count = written.astype(np.uint64)
    file[f"INDEX/{channel}/count"][:] = count
    file[f"INDEX/{channel}/first"][:] = np.cumsum(count) - count
    file[f"INSTRUMENT/{channel}/trainId"][:] = 0
    file[f"INSTRUMENT/{channel}/trainId"][: written.sum()] = train_id[written]
    file[f"INSTRUMENT/{channel}/intensityTD"][: written.sum()] = energy[rows[written]]
    file["INDEX/timestamp"][: len(rows)] = START + (train_id - FIRST_TRAIN) * 100_000_000
    file["INDEX/flag"][: len(rows)] = ~np.isin(rows, beamline.suspect)
    for name in ("METADATA/runType", "METADATA/sample"):
        del file[name]
    file["METADATA/runType"] = [b"Simulation"]
    file["METADATA/sample"] = [b"None (panosc-analysis simulate sase-delivery)"]


def simulate(output: Path, trains: int | None = None, seed: int = 0) -> list[Path]:
    """Write the pair of runs and, beside them, `truth.json`.

    Parameters
    ----------
    output
        Folder for r0008, r0009 and truth.json; made if need be.
    trains
        Trains of the first run, at least 60; default that of the published example.
    seed
        Seed of the random generator: the same seed gives the same data.

    Returns
    -------
    The run folders.

    Raises
    ------
    InputError
        OutputExists, or InvalidParameters for too few trains.
    """
    if trains is not None and trains < 60:
        raise InputError("InvalidParameters", f"--trains {trains}: at least 60, else the two runs hardly overlap")
    return write_runs(output, published_scheme(trains) if trains else published_scheme(), seed)


def write_runs(output: Path, beamlines: Sequence[Beamline], seed: int) -> list[Path]:
    """Write a run for each beamline, each drawn from a generator of its own, and `truth.json`.

    What an earlier call wrote with the same seed and beamlines stays as it is: `truth.json` comes last and tells.
    """
    runs = [output / beamline.name for beamline in beamlines]
    told = truth(beamlines, seed)
    if _is_told(output / "truth.json", told) and all(run.is_dir() for run in runs):
        return runs
    for run in (*runs, output / "truth.json"):
        if run.exists():
            raise InputError("OutputExists", f"{run} exists: remove it or choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    streams = np.random.SeedSequence(seed).spawn(len(beamlines))
    for run, beamline, stream in zip(runs, beamlines, streams, strict=True):
        partial = output / f".{run.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_run(partial, beamline, energies(beamline, np.random.default_rng(stream)))
        partial.rename(run)
    partial_truth = output / ".truth.json.partial"
    partial_truth.write_text(json.dumps(told, indent=2) + "\n")
    partial_truth.rename(output / "truth.json")
    return runs


def _is_told(path: Path, told: dict[str, Any]) -> bool:
    """Whether a file holds this truth."""
    try:
        return bool(json.loads(path.read_text()) == json.loads(json.dumps(told)))
    except (FileNotFoundError, ValueError):
        return False


def truth(beamlines: Sequence[Beamline], seed: int) -> dict[str, Any]:
    """State what went into the runs and what an analysis must count in them."""
    with_data = [
        {beamline.first_train + row for row in range(beamline.trains) if row not in lost}
        for beamline in beamlines
        for lost in [{*beamline.without_data, *beamline.suspect}]
    ]
    common = set.intersection(*with_data)
    return {
        "seed": seed,
        "beamlines": [
            asdict(beamline) | {"rows": len(ids), "notInOtherRuns": len(ids - common)}
            for beamline, ids in zip(beamlines, with_data, strict=True)
        ],
        "commonTrains": len(common),
    }
