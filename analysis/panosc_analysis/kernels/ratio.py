"""The ratio of two means that were measured together, and what is known about its uncertainty.

The pulses of a train share what the accelerator did in that train, so the train is the unit that is
independent: every standard error here is one between trains ("block"), never one between pulses,
except `naive_standard_error`, which is there to show the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panosc_analysis.kernels.pulses import Moments

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Means:
    """Means of on and off with the variances and the covariance *of the means*."""

    on: float
    off: float
    var_on: float
    var_off: float
    covariance: float
    trains: int

    @property
    def ratio(self) -> float:
        """R = off / on."""
        return self.off / self.on


def block_means(on: Moments, off: Moments) -> Means:
    """Means over all pulses, with variances from the scatter of the trains.

    The linearised variance of a ratio estimator with trains as clusters (Cochran, Sampling
    Techniques, 1977, section 9A.2): it stays right where trains have different numbers of pulses.

    Parameters
    ----------
    on, off
        Moments per train, shape (trains,), of the same trains.
    """
    trains = on.sum.size
    mean_on, mean_off = _mean(on), _mean(off)
    score_on = (on.sum - mean_on * on.count) / on.count.sum()
    score_off = (off.sum - mean_off * off.count) / off.count.sum()
    factor = trains / (trains - 1)
    return Means(
        on=mean_on,
        off=mean_off,
        var_on=float(factor * score_on @ score_on),
        var_off=float(factor * score_off @ score_off),
        covariance=float(factor * score_on @ score_off),
        trains=trains,
    )


def delta_standard_error(means: Means) -> float:
    """Give the standard error of R by the delta method, with covariance.

    var R = [v_off + R² v_on - 2 R c] / m_on²
    """
    ratio = means.ratio
    variance = (means.var_off + ratio**2 * means.var_on - 2 * ratio * means.covariance) / means.on**2
    return float(np.sqrt(max(variance, 0.0)))


def naive_standard_error(on: Moments, off: Moments) -> float:
    """Give the standard error of R if all pulses were independent of each other (they are not)."""
    ratio = _mean(off) / _mean(on)
    relative = _variance(on) / on.count.sum() / _mean(on) ** 2
    return float(np.sqrt(_variance(off) / off.count.sum() / _mean(on) ** 2 + ratio**2 * relative))


@dataclass(frozen=True)
class Interval:
    """An interval of R; unbounded sides are infinite."""

    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


def fieller_interval(means: Means, confidence_level: float) -> Interval:
    """Confidence interval of a ratio of two normal means (Fieller 1954).

    R = [P ∓ sqrt(P² - (m_on² - t² v_on)(m_off² - t² v_off))] / (m_on² - t² v_on) with
    P = m_on m_off - t² c and t the quantile of Student's distribution with trains - 1 degrees of
    freedom. Where m_on itself is not significant (m_on² <= t² v_on) the interval is unbounded.
    """
    from scipy.special import stdtrit

    quantile = float(stdtrit(means.trains - 1, (1 + confidence_level) / 2))
    return _fieller(means, quantile**2)


def _fieller(means: Means, t2: float) -> Interval:
    a = means.on**2 - t2 * means.var_on
    p = means.on * means.off - t2 * means.covariance
    c = means.off**2 - t2 * means.var_off
    if a <= 0:
        return Interval(-np.inf, np.inf)
    # With a > 0 the discriminant is never negative but for rounding: R = off/on is always inside.
    root = float(np.sqrt(max(p**2 - a * c, 0.0)))
    return Interval((p - root) / a, (p + root) / a)


def upper_limit(ratio: float, standard_error: float, confidence_level: float) -> float:
    """One-sided upper limit of a ratio that cannot be negative.

    max(R, 0) + z σ with z the one-sided normal quantile: it covers at least `confidence_level`, also where
    the noise drove the estimate below zero.
    """
    from scipy.special import ndtri

    return max(ratio, 0.0) + float(ndtri(confidence_level)) * standard_error


def bootstrap_sums(columns: Vector, replicates: int, seed: int) -> Vector:
    """Sum columns over trains drawn with replacement (Efron 1979), trains as blocks.

    Parameters
    ----------
    columns
        Shape (trains, columns). All columns of a train are drawn together, so what is correlated
        between them stays so.
    replicates
        Number of resamplings.
    seed
        Seed of the generator: the same data and seed give the same answer.

    Returns
    -------
    Shape (replicates, columns).
    """
    trains = columns.shape[0]
    generator = np.random.default_rng(seed)
    sums = np.empty((replicates, columns.shape[1]))
    chunk = max(1, 250_000 // trains)  # some 2 MB of drawn indices at a time
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        drawn = generator.integers(0, trains, (size, trains))
        times = np.array([np.bincount(row, minlength=trains) for row in drawn], dtype=np.float64)
        sums[start : start + size] = times @ columns
    return sums


def median_standard_error(values: Vector) -> float:
    """Give the standard error that a bootstrap of the median would have with endless resamplings.

    The k-th ordered value is the median of a resampling with probability I_{k/n}(m, m) - I_{(k-1)/n}(m, m), where
    m = (n + 1)/2 and I is the regularised incomplete beta function (Maritz and Jarrett, JASA 73, 194, 1978).

    Parameters
    ----------
    values
        Shape (trains,), independent.
    """
    from scipy.special import betainc

    middle = (values.size + 1) / 2
    weights = np.diff(betainc(middle, middle, np.linspace(0, 1, values.size + 1)))
    ordered = np.sort(values)
    return float(np.sqrt(max(weights @ ordered**2 - (weights @ ordered) ** 2, 0.0)))


def percentile_interval(replicates: Vector, confidence_level: float) -> Interval:
    """Interval between the percentiles of bootstrap replicates."""
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(low), float(high))


def decibel(ratio: float) -> float:
    """Suppression in dB, -10 log10 R; infinite for R <= 0."""
    return float(-10 * np.log10(ratio)) if ratio > 0 else float("inf")


@dataclass(frozen=True)
class PublishedRatio:
    """The figures of the published notebook: spreads of single pulses, called ± there."""

    mean_on: float
    std_on: float
    mean_off: float
    std_off: float
    ratio: float
    spread: float


@dataclass(frozen=True)
class PublishedTrains:
    """The published figures of each train; all of shape (trains,)."""

    mean_on: Vector
    std_on: Vector
    mean_off: Vector
    std_off: Vector
    ratio: Vector
    spread: Vector


def published_trains(on: NDArray[np.floating], off: NDArray[np.floating]) -> PublishedTrains:
    """R_t = mean_off / mean_on of each train and its spread, as in the published notebook.

    spread_t = R_t sqrt((s_off/m_off)² + (s_on/m_on)²) with population standard deviations over the pulses of
    the train. Nothing is masked or subtracted, but NaN are left out.

    Parameters
    ----------
    on, off
        Energies, shapes (trains, on pulses) and (trains, off pulses).
    """
    mean_on, std_on = _mean_and_std(on)
    mean_off, std_off = _mean_and_std(off)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean_off / mean_on
        spread = np.abs(ratio) * np.hypot(std_off / mean_off, std_on / mean_on)
    return PublishedTrains(mean_on, std_on, mean_off, std_off, ratio, spread)


def published_ratio(on: NDArray[np.floating], off: NDArray[np.floating]) -> PublishedRatio:
    """Do the same over all pulses of all trains together (the published overall figures)."""
    trains = published_trains(on.reshape(1, -1), off.reshape(1, -1))
    return PublishedRatio(
        mean_on=float(trains.mean_on[0]),
        std_on=float(trains.std_on[0]),
        mean_off=float(trains.mean_off[0]),
        std_off=float(trains.std_off[0]),
        ratio=float(trains.ratio[0]),
        spread=float(trains.spread[0]),
    )


def _mean_and_std(values: NDArray[np.floating]) -> tuple[Vector, Vector]:
    """Return mean and population standard deviation of each row; NaN are left out, as xarray does."""
    valid = np.isfinite(values)
    count = valid.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(valid, values, 0).sum(axis=1, dtype=np.float64) / count
        deviation = np.where(valid, values - mean[:, np.newaxis], 0)
        return mean, np.sqrt((deviation**2).sum(axis=1) / count)


def _mean(moments: Moments) -> float:
    return float(moments.sum.sum() / moments.count.sum())


def _variance(moments: Moments) -> float:
    """Of the single pulses about their common mean."""
    count = int(moments.count.sum())
    return float((moments.square.sum() - moments.sum.sum() ** 2 / count) / (count - 1))
