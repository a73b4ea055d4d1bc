"""Statistics of the two-sample test: exact small cases, the null, coverage, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from skyproof.assess import control
from skyproof.assess.twosample import (
    Ranking,
    accuracy,
    accuracy_by,
    auc,
    balanced_accuracy,
    bootstrap_interval,
    calibration,
    detectable_auc,
    permutation_test,
    roc_band,
    wilson_interval,
)
from skyproof.core.seeds import stream


def sample(
    rng: np.random.Generator, bricks: int, rows: int, *, signal: float = 0.0, vary: float = 0.0,
    offset: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return scores, labels, groups: normal scores, offsets and signals that vary by brick."""
    group = np.repeat(np.arange(bricks), rows)
    label = np.tile(np.arange(rows) % 2, bricks)
    shift = rng.normal(0, offset, bricks)[group]
    gain = (signal + rng.normal(0, vary, bricks))[group]
    return rng.normal(size=len(group)) + shift + gain * label, label, group


def delong_variance(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the variance of the AUC of independent rows (DeLong et al. 1988), O(n^2)."""
    wins = (scores[labels == 1][:, None] > scores[labels == 0]) + 0.5 * (
        scores[labels == 1][:, None] == scores[labels == 0]
    )
    rows, columns = wins.mean(axis=1), wins.mean(axis=0)
    return rows.var(ddof=1) / len(rows) + columns.var(ddof=1) / len(columns)


def test_auc_is_the_share_of_won_pairs_with_ties_and_weights() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 8, 200) / 8, rng.integers(0, 2, 200)
    weights = rng.uniform(0, 2, 200)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    weighted = roc_auc_score(labels, scores, sample_weight=weights)
    assert auc(scores, labels, weights) == pytest.approx(weighted, abs=1e-12)
    assert auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1])) == 0.875
    false, true = Ranking(scores, labels).roc(weights)
    assert np.trapezoid(true, false) == pytest.approx(weighted, abs=1e-12)


def test_accuracies() -> None:
    scores, labels = np.array([0.1, 0.5, 0.6, 0.2]), np.array([0, 1, 0, 0])
    assert accuracy(scores, labels) == 0.75
    assert accuracy(scores, labels, np.array([1, 0, 1, 0])) == 0.5
    assert balanced_accuracy(scores, labels) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_p_values_are_uniform_under_the_null_even_with_brick_offsets(offset: float) -> None:
    """o14: for any differences between bricks, 200 null samples give uniform p-values."""
    rng = np.random.default_rng(7)
    values = []
    for _ in range(200):
        scores, labels, groups = sample(rng, 4, 30, offset=offset)
        test = permutation_test(scores, labels, groups, draws=199, stream=rng)
        values.append(test.p_value)
    # Measured: KS p = 0.56 (offset 0) and 0.89 (offset 1); 3.5 % and 5 % of p up to 0.05.
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert np.mean(np.array(values) <= 0.05) < 0.10


def test_a_shuffle_over_all_bricks_would_fail_where_class_ratios_differ() -> None:
    """Bricks with different level and class ratio: the pooled AUC is not 0.5, p is correct."""
    rng = np.random.default_rng(3)
    groups = np.repeat([0, 1], 60)
    labels = np.r_[np.arange(60) % 6 == 0, np.arange(60) % 6 > 0].astype(int)
    scores = rng.normal(size=120) + 2 * groups
    assert auc(scores, labels) > 0.7
    test = permutation_test(scores, labels, groups, draws=499, stream=rng)
    assert test.p_value > 0.05
    assert test.mean == pytest.approx(auc(scores, labels), abs=0.1)


def test_a_planted_signal_is_found_in_either_direction() -> None:
    """o15: the smallest possible p, for a signal and for its mirror image."""
    rng = np.random.default_rng(5)
    scores, labels, groups = sample(rng, 5, 60, signal=0.8)
    for mirrored in (scores, -scores):
        test = permutation_test(mirrored, labels, groups, draws=199, stream=rng)
        assert test.p_value == 1 / 200


def test_null_spread_gives_the_detectable_auc() -> None:
    rng = np.random.default_rng(6)
    scores, labels, groups = sample(rng, 5, 80)
    test = permutation_test(scores, labels, groups, draws=500, stream=rng)
    expected = np.sqrt(401 / (12 * 200 * 200))  # Mann & Whitney's, all rows exchangeable
    assert test.standard_deviation == pytest.approx(expected, rel=0.15)
    reach = detectable_auc(expected, 0.95)
    signal = np.sqrt(2) * stats.norm.ppf(reach)
    found = [
        permutation_test(*sample(rng, 5, 80, signal=signal), draws=199, stream=rng).p_value <= 0.05
        for _ in range(100)
    ]
    assert 0.68 <= np.mean(found) <= 0.92  # measured 0.79; a binomial of 100 at 0.8 has sd 0.04


@pytest.mark.parametrize(("bricks", "least"), [(3, 0.90), (5, 0.90), (20, 0.90)])
def test_the_bootstrap_interval_covers(bricks: int, least: float) -> None:
    """A21: groups differ in level and in signal, and 95 % intervals hold the truth nearly as often.

    Measured with 300 samples of 200 draws: 3 bricks 0.953, 5 bricks 0.967, 10 bricks 0.940, 30
    bricks 0.963; percentile intervals: 0.69, 0.82, 0.89, 0.94. Here: 0.958, 0.933, 0.950, with a
    standard deviation of 0.02.
    """
    rng = np.random.default_rng(bricks)
    truth = stats.norm.cdf(0.8 / np.sqrt(2 + 2 * 0.3**2 + 0.3**2))
    inside = 0
    for _ in range(120):
        scores, labels, groups = sample(rng, bricks, 60, signal=0.8, vary=0.3, offset=0.3)
        interval = bootstrap_interval(
            Ranking(scores, labels).auc, groups, draws=100, confidence=0.95, stream=rng
        )
        inside += interval.low <= truth <= interval.high
    assert inside / 120 >= least


def test_bootstrap_error_agrees_with_delong_where_rows_are_independent() -> None:
    rng = np.random.default_rng(11)
    scores, labels, groups = sample(rng, 40, 20, signal=0.6)
    expected = np.sqrt(delong_variance(scores, labels))
    interval = bootstrap_interval(
        Ranking(scores, labels).auc, groups, draws=1000, confidence=0.95, stream=rng
    )
    assert interval.standard_error == pytest.approx(expected, rel=0.25)  # measured ratio 1.03
    assert interval.trusted


def test_one_brick_is_resampled_by_rows_and_not_trusted() -> None:
    scores, labels, _ = sample(np.random.default_rng(2), 1, 50)
    interval = bootstrap_interval(
        Ranking(scores, labels).auc, np.zeros(50), draws=50, confidence=0.95, stream=stream(1, "a")
    )
    assert (interval.unit, interval.units, interval.trusted) == ("row", 50, False)
    assert 0 < interval.low < interval.high < 1


def test_few_bricks_and_constant_scores_are_not_trusted() -> None:
    scores, labels, groups = sample(np.random.default_rng(2), 4, 50)
    few = bootstrap_interval(
        Ranking(scores, labels).auc, groups, draws=50, confidence=0.95, stream=stream(1, "a")
    )
    assert not few.trusted
    scores, labels, groups = sample(np.random.default_rng(2), 6, 50)
    constant = np.full(300, 0.5)
    flat = bootstrap_interval(
        Ranking(constant, labels).auc, groups, draws=50, confidence=0.95, stream=stream(1, "a")
    )
    assert (flat.low, flat.high, flat.trusted) == (0.5, 0.5, False)
    test = permutation_test(constant, labels, groups, draws=50, stream=stream(1, "b"))
    assert test.p_value == 1.0


def test_bricks_that_hold_one_class_each_leave_finite_numbers() -> None:
    scores, labels = np.linspace(0, 1, 40), np.repeat([0, 1], 20)
    interval = bootstrap_interval(
        Ranking(scores, labels).auc, labels, draws=40, confidence=0.95, stream=stream(1, "a")
    )
    assert np.isfinite([interval.low, interval.high, interval.standard_error]).all()
    test = permutation_test(scores, labels, labels, draws=20, stream=stream(1, "b"))
    assert test.p_value == 1.0  # no shuffle inside a brick changes anything


def test_the_roc_band_holds_the_curve_and_stays_in_range() -> None:
    rng = np.random.default_rng(8)
    scores, labels, groups = sample(rng, 6, 60, signal=1.0)
    grid = np.linspace(0, 1, 21)
    ranking = Ranking(scores, labels)
    low, high = roc_band(ranking, groups, grid, draws=50, confidence=0.95, stream=rng)
    centre = np.interp(grid, *ranking.roc())
    assert (low <= centre).all()
    assert (centre <= high).all()
    assert low.min() >= 0
    assert high.max() <= 1
    assert (high - low)[1:-1].min() > 0


def test_wilson_interval_golden() -> None:
    # Wilson 1927 for 81 of 263 at 95 %: Newcombe 1998 (Statistics in Medicine 17, 857), Table I.
    assert wilson_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 0, 0.95) == (0.0, 1.0)


def test_accuracy_by_bins() -> None:
    values = np.r_[np.arange(12.0), np.nan]
    scores = np.r_[np.full(6, 0.9), np.full(6, 0.1), 0.1]
    labels = np.r_[np.ones(6), np.ones(3), np.zeros(3), 1].astype(int)
    rows = accuracy_by(values, scores, labels, bins=2, confidence=0.95)
    assert [row["n"] for row in rows] == [6, 6]
    assert [row["accuracy"] for row in rows] == [1.0, 0.5]
    assert rows[0]["auc"] is None
    assert rows[1]["auc"] == 0.5
    assert rows[1]["from"] == 6.0
    tied = accuracy_by(np.full(13, 21.0), scores, labels, bins=5, confidence=0.95)
    assert [row["n"] for row in tied] == [13]
    assert accuracy_by(np.full(13, np.nan), scores, labels, bins=5, confidence=0.95) == []


def test_calibration() -> None:
    rng = np.random.default_rng(9)
    scores = rng.uniform(size=20_000)
    labels = (rng.uniform(size=20_000) < scores).astype(int)
    assert calibration(scores, labels)["expected_error"] < 0.02  # measured 0.009
    sure = calibration(np.full(100, 1.0), np.repeat([0, 1], 50))
    assert sure["expected_error"] == 0.5
    assert sure["brier"] == 0.5


def columns(
    rng: np.random.Generator, n: int, *, colour: float = 0.0, brighter: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return magnitude, colour, size [n, 3] with unknown sizes, and labels."""
    label = rng.permutation(np.arange(n) % 2)
    magnitude = rng.normal(22, 0.7, n) - brighter * label
    shade = 0.6 + rng.normal(0, 0.25, n) + colour * label
    size = np.where(rng.uniform(size=n) < 0.1, np.nan, rng.lognormal(-0.7, 0.3, n))
    return np.stack([magnitude, shade, size], axis=1), label


def test_the_control_finds_a_colour_offset_and_nothing_under_the_null() -> None:
    rng = np.random.default_rng(12)
    for offset, low, high in ((0.0, 0.44, 0.56), (0.3, 0.70, 0.85)):  # measured 0.508, 0.747
        train, label = columns(rng, 800, colour=offset)
        test, test_label = columns(rng, 600, colour=offset)
        area = auc(control.table_scores(train, label, test), test_label)
        assert low < area < high


def test_the_control_takes_unknown_columns() -> None:
    rng = np.random.default_rng(13)
    train, label = columns(rng, 200)
    train[:, 1] = np.nan
    assert np.isfinite(control.table_scores(train, label, train)).all()
    unknown = np.full((200, 2), np.nan)
    assert (control.table_scores(unknown, label, unknown) == 0.5).all()
    assert np.isfinite(control.overlap_weights(unknown, label, unknown, label)).all()


def test_matching_removes_a_planted_magnitude_difference() -> None:
    """Scores that depend only on magnitude: AUC far from 0.5 before matching, near after."""
    rng = np.random.default_rng(14)
    train, label = columns(rng, 2000, brighter=0.5)
    test, test_label = columns(rng, 2000, brighter=0.5)
    scores = -test[:, 0] + rng.normal(0, 0.5, len(test))
    weights = control.overlap_weights(train, label, test, test_label)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert auc(scores, test_label) > 0.60  # measured 0.638
    assert abs(auc(scores, test_label, weights) - 0.5) < 0.04  # measured 0.015; its sd is 0.014
    before = control.worst_imbalance(test, test_label)
    after = control.worst_imbalance(test, test_label, weights)
    assert before > 0.5  # measured 0.60 and 0.12 standard deviations
    assert after < 0.2
    assert 700 < control.effective_size(weights[test_label == 1]) < 1000


def test_columns_are_sorted_by_their_difference() -> None:
    rng = np.random.default_rng(15)
    test, label = columns(rng, 600, colour=0.3)
    constant = np.c_[test, np.ones(600)]
    rows = control.column_differences(
        ["mag", "colour", "size", "one"], constant, -test[:, 0], label
    )
    assert rows[0]["column"] == "colour"
    assert {row["column"] for row in rows} == {"mag", "colour", "size"}
    correlation = {row["column"]: row["score_correlation"] for row in rows}
    assert correlation["mag"] == pytest.approx(-1.0)
