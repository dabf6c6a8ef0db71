"""Pulse-resolved signals of an X-ray gas monitor (XGM): fills, pedestal, on/off pattern.

An XGM writes a fixed number of slots per train. Slots that no bunch filled hold exactly 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FILL = 1.0
"""What an XGM writes into a slot without a bunch."""

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]


def used_slots(energy: Floats) -> NDArray[np.intp]:
    """Count the slots of each train up to its last one that does not hold the fill value.

    Parameters
    ----------
    energy
        Pulse energies, shape (trains, slots).

    Returns
    -------
    Shape (trains,): 1 + index of the last slot that is not a fill, 0 for a train of fills alone.
    """
    from_last = np.pad(energy[:, ::-1] != FILL, ((0, 0), (0, 1)), constant_values=True)
    used: NDArray[np.intp] = energy.shape[1] - from_last.argmax(axis=1)
    return used


def fill_mask(energy: Floats, used: Ints) -> Bools:
    """Tell fills from pulses whose energy happens to be exactly 1.0.

    A fill is 1.0 behind the train's last pulse; a pulse of exactly 1.0 before it is kept. Slots behind the last pulse
    that hold something else have measured the signal without beam.

    Parameters
    ----------
    energy
        Pulse energies, shape (trains, slots), slot 0 first.
    used
        Slots of each train up to its last pulse, shape (trains,): from `used_slots`, of the slots that can hold a bunch
        where their number is known.

    Returns
    -------
    Shape (trains, slots), True where the slot holds no measurement.
    """
    fills: Bools = (np.arange(energy.shape[1]) >= used[:, np.newaxis]) & (energy == FILL)
    return fills


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of the valid slots of each train; all of shape (trains,)."""

    count: NDArray[np.int64]
    sum: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each train; NaN where the train has no valid slot."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sum / self.count


def moments(energy: Floats, valid: Bools) -> Moments:
    """Sum the valid slots of each train in double precision.

    Parameters
    ----------
    energy
        Shape (trains, slots); NaN allowed where `valid` is False.
    valid
        Shape (trains, slots).
    """
    values = np.where(valid, energy, 0).astype(np.float64, copy=False)
    return Moments(valid.sum(axis=1), values.sum(axis=1), np.einsum("ts,ts->t", values, values))


@dataclass(frozen=True)
class Pedestal:
    """The signal without beam, from slots behind the last bunch."""

    per_train: NDArray[np.float64]
    """Pedestal b_t of each train, shape (trains,); the run's mean where a train has no dark slot."""
    mean: float
    standard_error: float
    """Of the mean, from the scatter of the trains."""
    noise: float
    """Standard deviation of one dark slot about its train's pedestal."""
    slots: int
    trains_without: int


def pedestal(dark: Moments) -> Pedestal | None:
    """Pedestal of each train from its dark slots, or None where there are none.

    Parameters
    ----------
    dark
        Moments of the slots without beam, per train.
    """
    measured = dark.count > 0
    trains = int(measured.sum())
    if trains < 2:
        return None
    count, per_train = dark.count[measured], dark.mean
    mean = float(dark.sum.sum() / dark.count.sum())
    within = float((dark.square[measured] - dark.sum[measured] ** 2 / count).sum())
    freedom = int((count - 1).sum())
    return Pedestal(
        per_train=np.where(measured, per_train, mean),
        mean=mean,
        standard_error=float(per_train[measured].std(ddof=1) / np.sqrt(trains)),
        noise=float(np.sqrt(max(within, 0.0) / freedom)) if freedom else float("nan"),
        slots=int(dark.count.sum()),
        trains_without=int((~measured).sum()),
    )


@dataclass(frozen=True)
class Levels:
    """Two classes of slots: those that lase (on) and those that are suppressed (off)."""

    on: tuple[int, ...]
    off: tuple[int, ...]
    confidence: float
    """Share of the variance of the slots' means that the two classes explain, 0 to 1."""


def two_levels(slot_mean: Floats) -> Levels:
    """Split slots into on and off by the mean energy of each.

    The split of the sorted means with the smallest sum of squares inside the two classes
    (Fisher 1958, exact k-means in one dimension with k = 2; the criterion of Otsu 1979). Two clean levels give a
    confidence near 1, Gaussian scatter about one level 0.6 to 0.7, evenly spread means 0.75.

    Parameters
    ----------
    slot_mean
        Mean energy of each slot, shape (slots,), at least two, finite.

    Returns
    -------
    Indices into `slot_mean`, ascending.
    """
    order = np.argsort(slot_mean, kind="stable")
    value = slot_mean[order].astype(np.float64)
    low = np.arange(1, value.size)
    high = value.size - low
    below = np.cumsum(value)[:-1]
    between = (below / low - (value.sum() - below) / high) ** 2 * low * high / value.size
    split = int(np.argmax(between)) + 1
    total = float(((value - value.mean()) ** 2).sum())
    return Levels(
        on=tuple(sorted(int(slot) for slot in order[split:])),
        off=tuple(sorted(int(slot) for slot in order[:split])),
        confidence=float(between[split - 1] / total) if total > 0 else 0.0,
    )
