"""Welch's interval against SciPy's and a worked example, the bootstrap against SciPy's; ranks on hand-made columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_ind

from cgh_bench.report.significance import paired_interval, ranks, welch_half_widths


def test_interval_equals_a_case_worked_by_hand() -> None:
    """Means 2 and 6, variances 1 and 4, three values each.

    Standard error sqrt(1/3 + 4/3) = 1.29099; freedom (5/3)^2 / ((1/3)^2/2 + (4/3)^2/2) = 2.94118; t(.975) of that is
    3.2188 (between 4.3027 for 2 and 3.1824 for 3).
    """
    halves = welch_half_widths([[1, 2, 3], [4, 6, 8]])
    assert halves[0, 1] == halves[1, 0] == pytest.approx(3.2188 * 1.29099, rel=1e-3)


SAMPLE = st.lists(st.integers(0, 1000).map(lambda tenths: tenths / 10), min_size=2, max_size=6).filter(
    lambda values: len(set(values)) > 1
)


@given(SAMPLE, SAMPLE)
def test_interval_equals_scipys(a: list[float], b: list[float]) -> None:
    theirs = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    half = welch_half_widths([a, b])[0, 1]
    difference = np.mean(a) - np.mean(b)
    assert (difference - half, difference + half) == pytest.approx((theirs.low, theirs.high))


def test_samples_without_spread_are_told_apart_by_any_difference() -> None:
    assert welch_half_widths([[5.0, 5.0], [4.9, 4.9]]).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_single_value_has_no_interval() -> None:
    halves = welch_half_widths([[5.0], [4.9, 4.8], [4.7, 4.6]])
    assert np.isnan(halves[0]).all()
    assert np.isfinite(halves[1, 2])


LOW, MIDDLE, HIGH = [10.0, 10.2, 9.8], [20.0, 20.2, 19.8], [30.0, 30.2, 29.8]
NEAR_HIGH = [29.9, 30.1, 29.5]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([LOW, MIDDLE, HIGH], [0, 2, 1]),
        ([HIGH, LOW, MIDDLE], [1, 0, 2]),
        ([LOW, NEAR_HIGH, HIGH], [0, 1, 1]),  # digits differ, spread says nothing; the last has nobody behind it
        ([NEAR_HIGH, HIGH], [0, 0]),
        ([LOW, HIGH], [0, 1]),
        ([LOW, [], HIGH], [0, 0, 1]),
        ([LOW, [25.0], HIGH], [0, 0, 0]),  # a single run forbids a verdict
        ([HIGH], [0]),
        ([[], []], [0, 0]),
        ([], []),
    ],
)
def test_ranks(samples: list[list[float]], expected: list[int]) -> None:
    assert ranks(samples, higher_is_better=True) == expected


def test_less_may_be_better() -> None:
    assert ranks([LOW, MIDDLE, HIGH], higher_is_better=False) == [1, 2, 0]


def test_the_paired_interval_is_that_of_resampled_images() -> None:
    """Against SciPy's resampling of the images, and zero width if every image agrees."""
    rng = np.random.default_rng(1)
    differences = rng.choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.7, 0.2])
    mean, low, high = paired_interval(differences)
    assert mean == pytest.approx(differences.mean())
    scipys = bootstrap((differences,), np.mean, method="percentile", rng=rng).confidence_interval
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=0.006)
    assert paired_interval(np.zeros(5)) == (0.0, 0.0, 0.0)
