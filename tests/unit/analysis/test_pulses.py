import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panosc_analysis.kernels.pulses import FILL, fill_mask, moments, pedestal, two_levels, used_slots


def train(*pulses: float, slots: int = 8) -> np.ndarray:
    return np.array([[*pulses, *[FILL] * (slots - len(pulses))]], dtype=np.float32)


def test_slots_behind_the_last_pulse_are_fills() -> None:
    energy = np.vstack([train(5, 6, 7), train(5), train(), train(*range(10, 18))])
    used = used_slots(energy)
    assert used.tolist() == [3, 1, 0, 8]
    assert fill_mask(energy, used).sum(axis=1).tolist() == [5, 7, 8, 0]


def test_a_pulse_of_exactly_one_inside_the_train_survives() -> None:
    energy = train(5, 1.0, 7)
    assert not fill_mask(energy, used_slots(energy))[0, 1]


def test_with_known_bunches_a_one_behind_them_is_a_fill_though_dark_slots_follow() -> None:
    energy = train(5, 6, 7, 1.0, 0.2, -0.1)
    used = used_slots(energy[:, :3])
    assert fill_mask(energy, used)[0].nonzero()[0].tolist() == [3, 6, 7]


def test_a_short_train_before_dark_slots_has_its_fills_found() -> None:
    energy = train(5, 1.0, 1.0, 1.0, 0.2, -0.1)
    used = used_slots(energy[:, :4])
    assert used.tolist() == [1]
    assert fill_mask(energy, used)[0].nonzero()[0].tolist() == [1, 2, 3, 6, 7]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_fills_and_pulses_add_up_whatever_the_bunch_numbers(bunches: list[int]) -> None:
    energy = np.vstack([train(*[50.0] * number, slots=12) for number in bunches])
    used = used_slots(energy)
    assert used.tolist() == bunches
    assert fill_mask(energy, used).sum() == sum(12 - number for number in bunches)


def test_moments_leave_out_what_is_not_valid() -> None:
    energy = np.array([[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]], dtype=np.float32)
    found = moments(energy, np.isfinite(energy))
    assert found.count.tolist() == [2, 3]
    assert found.sum.tolist() == [3, 15]
    assert found.square.tolist() == [5, 77]
    assert found.mean.tolist() == [1.5, 5]


def test_pedestal_per_train_with_its_noise() -> None:
    generator = np.random.default_rng(0)
    drift = np.linspace(10, 20, 2000)
    dark = drift[:, np.newaxis] + generator.normal(0, 3.0, (2000, 50))
    valid = np.ones(dark.shape, dtype=bool)
    valid[7] = False
    found = pedestal(moments(dark, valid))
    assert found is not None
    assert found.noise == pytest.approx(3.0, rel=0.02)
    assert found.trains_without == 1
    assert found.per_train[7] == pytest.approx(found.mean)
    assert np.abs(np.delete(found.per_train - drift, 7)).max() < 5 * 3 / np.sqrt(50)
    assert found.standard_error == pytest.approx(drift.std() / np.sqrt(2000), rel=0.03)


def test_no_dark_slot_no_pedestal() -> None:
    energy = np.zeros((4, 3))
    assert pedestal(moments(energy, np.zeros(energy.shape, dtype=bool))) is None


def test_two_levels_are_found_and_their_confidence() -> None:
    levels = two_levels(np.array([1900.0, 70, 1870, 60, 1850, 80]))
    assert (levels.on, levels.off) == ((0, 2, 4), (1, 3, 5))
    assert levels.confidence > 0.999


def test_one_level_is_not_taken_for_two() -> None:
    generator = np.random.default_rng(3)
    confidences = [two_levels(generator.normal(1850, 20, 20)).confidence for _ in range(200)]
    assert max(confidences) < 0.9
    assert two_levels(np.linspace(0, 1, 20)).confidence == pytest.approx(0.75, abs=0.01)
    assert two_levels(np.ones(4)).confidence == 0


@given(st.lists(st.floats(-1e4, 1e4, allow_subnormal=False), min_size=2, max_size=9))
def test_the_split_is_the_best_of_all(means: list[float]) -> None:
    values = np.array(means)
    levels = two_levels(values)

    def inside(split: int) -> float:
        ordered = np.sort(values)
        return float(
            ((ordered[:split] - ordered[:split].mean()) ** 2).sum() + ordered[split:].var() * (values.size - split)
        )

    best = min(inside(split) for split in range(1, values.size))
    scale = float((values**2).sum()) + 1e-12
    assert inside(len(levels.off)) <= best + 1e-9 * scale
    assert sorted(levels.on + levels.off) == list(range(values.size))
