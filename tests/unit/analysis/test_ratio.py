from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from panosc_analysis.kernels import ratio as statistics
from panosc_analysis.kernels.pulses import Moments, moments
from panosc_analysis.simulate.sase_delivery import Beamline, energies, published_scheme


def on_off(energy: np.ndarray, beamline: Beamline) -> tuple[Moments, Moments]:
    on = [slot for slot in range(20) if slot in beamline.lasing]
    off = [slot for slot in range(20) if slot not in beamline.lasing]
    valid = np.ones((energy.shape[0], 10), dtype=bool)
    return moments(energy[:, on], valid), moments(energy[:, off], valid)


def draws(beamline: Beamline, seeds: int) -> Iterator[tuple[Moments, Moments]]:
    for seed in range(seeds):
        yield on_off(energies(beamline, np.random.default_rng([beamline.run, seed])), beamline)


def test_published_figures_are_those_of_an_independent_computation() -> None:
    generator = np.random.default_rng(5)
    on = generator.gamma(80, 25, (40, 10)).astype(np.float32)
    off = generator.normal(75, 28, (40, 10)).astype(np.float32)
    trains = statistics.published_trains(on, off)
    for row in range(40):
        mean_on, mean_off = sum(map(float, on[row])) / 10, sum(map(float, off[row])) / 10
        std_on = (sum((float(value) - mean_on) ** 2 for value in on[row]) / 10) ** 0.5
        std_off = (sum((float(value) - mean_off) ** 2 for value in off[row]) / 10) ** 0.5
        relative = ((std_off / mean_off) ** 2 + (std_on / mean_on) ** 2) ** 0.5
        expected = [mean_on, std_on, mean_off, std_off, mean_off / mean_on, mean_off / mean_on * relative]
        assert [column[row] for column in vars(trains).values()] == pytest.approx(expected, rel=1e-10)


def test_block_means_of_constant_trains_is_the_textbook_variance() -> None:
    generator = np.random.default_rng(6)
    on, off = generator.normal(100, 5, (50, 4)), generator.normal(10, 2, (50, 4))
    every = np.ones(on.shape, dtype=bool)
    means = statistics.block_means(moments(on, every), moments(off, every))
    train_on, train_off = on.mean(axis=1), off.mean(axis=1)
    assert means.var_on == pytest.approx(train_on.var(ddof=1) / 50)
    assert means.var_off == pytest.approx(train_off.var(ddof=1) / 50)
    assert means.covariance == pytest.approx(np.cov(train_on, train_off)[0, 1] / 50)
    assert means.ratio == pytest.approx(off.mean() / on.mean())


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.8])
def test_the_delta_formula_agrees_with_a_monte_carlo_within_two_percent(correlation: float) -> None:
    means = statistics.Means(1850.0, 76.0, 25.0**2, 4.0**2, correlation * 25 * 4, 100)
    covariance = [[means.var_on, means.covariance], [means.covariance, means.var_off]]
    drawn = np.random.default_rng(7).multivariate_normal([means.on, means.off], covariance, 400_000)
    assert statistics.delta_standard_error(means) == pytest.approx((drawn[:, 1] / drawn[:, 0]).std(), rel=0.02)


def test_the_published_formula_agrees_with_a_monte_carlo_within_two_percent() -> None:
    generator = np.random.default_rng(8)
    on, off = generator.normal(1850, 60, 400_000), generator.normal(76, 5, 400_000)
    assert statistics.published_ratio(on, off).spread == pytest.approx((off / on).std(), rel=0.02)


def test_fieller_is_the_set_of_ratios_that_a_t_test_does_not_reject() -> None:
    means = statistics.Means(100.0, 5.0, 4.0, 1.0, 0.7, 30)
    interval = statistics.fieller_interval(means, 0.95)
    for side in (interval.low, interval.high):
        variance = means.var_off - 2 * side * means.covariance + side**2 * means.var_on
        assert abs(means.off - side * means.on) / variance**0.5 == pytest.approx(2.045, abs=0.001)  # t(29), 97.5 %


def test_fieller_is_unbounded_where_the_denominator_is_not_significant() -> None:
    interval = statistics.fieller_interval(statistics.Means(1.0, 5.0, 4.0, 1.0, 0.0, 30), 0.95)
    assert (interval.low, interval.high, interval.bounded) == (-np.inf, np.inf, False)


def test_fieller_covers_the_truth_also_where_off_is_no_more_than_noise() -> None:
    scheme = replace(published_scheme()[1], trains=60, bunches=20, ratio=0.0002, lasing=tuple(range(1, 20, 2)))
    covered = 0
    for on, off in draws(scheme, 500):
        interval = statistics.fieller_interval(statistics.block_means(on, off), 0.95)
        covered += interval.low <= scheme.ratio <= interval.high
    assert 0.92 < covered / 500 < 0.98


def test_bootstrap_interval_covers_the_truth_and_a_naive_one_does_not() -> None:
    scheme = replace(published_scheme()[0], bunches=20, trains=300)
    covered = naive_covered = 0
    for seed, (on, off) in enumerate(draws(scheme, 200)):
        columns = np.column_stack([on.sum, off.sum])
        sums = statistics.bootstrap_sums(columns, 400, seed)
        interval = statistics.percentile_interval(sums[:, 1] / sums[:, 0], 0.95)
        covered += interval.low <= scheme.ratio <= interval.high
        away = abs(statistics.block_means(on, off).ratio - scheme.ratio)
        naive_covered += away < 1.96 * statistics.naive_standard_error(on, off)
    assert 0.90 <= covered / 200 <= 0.99
    assert naive_covered / 200 < 0.7


def test_bootstrap_is_repeatable_and_agrees_with_the_delta_method() -> None:
    scheme = replace(published_scheme()[0], bunches=20, trains=2000)
    on, off = next(draws(scheme, 1))
    columns = np.column_stack([on.sum, off.sum])
    sums = statistics.bootstrap_sums(columns, 2000, 1)
    assert (sums == statistics.bootstrap_sums(columns, 2000, 1)).all()
    assert not (sums == statistics.bootstrap_sums(columns, 2000, 2)).all()
    delta = statistics.delta_standard_error(statistics.block_means(on, off))
    assert (sums[:, 1] / sums[:, 0]).std() == pytest.approx(delta, rel=0.06)


def test_standard_error_of_the_median_is_that_of_a_bootstrap() -> None:
    generator = np.random.default_rng(9)
    values = generator.gamma(2, 1, 301)
    resampled = np.median(values[generator.integers(0, 301, (20_000, 301))], axis=1)
    assert statistics.median_standard_error(values) == pytest.approx(resampled.std(), rel=0.02)
    assert statistics.median_standard_error(np.full(9, 3.0)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("line", "too_small_off"), [(0, 3.0), (1, 1.75)])
def test_the_naive_standard_error_is_too_small(line: int, too_small_off: float) -> None:
    scheme = published_scheme()[line]
    scheme = replace(scheme, bunches=20, lasing=tuple(slot for slot in scheme.lasing if slot < 20))
    on, off = next(draws(scheme, 1))
    means = statistics.block_means(on, off)
    pulses = off.count.sum()
    naive_off = (off.square.sum() / pulses - means.off**2) / pulses
    assert (means.var_off / naive_off) ** 0.5 == pytest.approx(too_small_off, rel=0.05)
    # Of R itself: the scatter of the on pulses, which are independent, adds to both.
    shared, own, on_share = scheme.train_sigma**2, scheme.pulse_sigma**2, (scheme.ratio * scheme.energy * 0.11) ** 2
    expected = ((10 * shared + own + on_share) / (shared + own + on_share)) ** 0.5
    naive = statistics.naive_standard_error(on, off)
    assert statistics.delta_standard_error(means) / naive == pytest.approx(expected, rel=0.05)


def test_upper_limit_covers_at_least_its_level_for_any_small_signal() -> None:
    generator = np.random.default_rng(10)
    for truth in (0.0, 0.5, 2.0):
        estimates = truth + generator.standard_normal(20_000)
        covered = np.mean([truth <= statistics.upper_limit(value, 1.0, 0.95) for value in estimates])
        assert covered >= 0.945


def test_decibel() -> None:
    assert statistics.decibel(0.1) == pytest.approx(10)
    assert statistics.decibel(-0.1) == np.inf
