"""The null test's parts: bins, mock skies, covariance and p-values; power and its shot noise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import kstest

from skyproof.core.seeds import stream
from skyproof.sky.healpix import coarse_pixels
from skyproof.sysnet.mocks import null
from skyproof.sysnet.mocks.fields import gaussian_field
from skyproof.sysnet.table import Table
from skyproof.sysnet.verdict import power
from skyproof.sysnet.verdict.merit import loss_difference, recovery
from skyproof.sysnet.verdict.nulltest import Bins, NullTest


def test_contrast_of_a_template_by_hand():
    values = np.repeat(np.arange(1000) / 999, 1)[:, None]
    fracgood = np.full(1000, 0.5)
    bins = Bins.of(values, fracgood)
    assert len(bins.template) == 9
    assert bins.low[0] == pytest.approx(0.025)
    assert bins.high[-1] == pytest.approx(0.975)
    label = np.where(values[:, 0] < bins.high[0], 2.0, 1.0)
    inside = (values[:, 0] >= bins.low[0]) & (values[:, 0] < bins.high[0])
    expected = 2.0 / 0.5 / (label.sum() / 500) - 1
    contrast = bins.density_contrast(label)
    assert contrast[0] == pytest.approx(expected)
    assert contrast[5] == pytest.approx(1.0 / 0.5 / (label.sum() / 500) - 1)
    assert bins.centres(values)[0] == pytest.approx(values[inside].mean())
    np.testing.assert_allclose(bins.density_contrast(3 * label), contrast)


def test_a_template_of_few_values_has_fewer_bins():
    values = np.stack([np.repeat([0.0, 1.0], 500), np.r_[np.zeros(995), np.arange(5)]], axis=1)
    bins = Bins.of(values, np.ones(1000))
    assert list(np.bincount(bins.template)) == [2, 1]


def gaussian_test(n_mocks: int, rng: np.random.Generator) -> NullTest:
    """Return a null test of two templates with correlated Gaussian bins, not from a sky."""
    mixing = rng.normal(size=(18, 18))
    template = np.repeat([0, 1], 9)
    return NullTest(SimpleNamespace(template=template), rng.normal(size=(n_mocks, 18)) @ mixing), \
        mixing  # fmt: skip


def test_p_values_are_uniform_without_contamination():
    """Forty mocks of nine bins: without Hotelling's correction p-values would be near 0."""
    rng = np.random.default_rng(5)
    p_values, sums = [], []
    for _ in range(300):
        test, mixing = gaussian_test(40, rng)
        contrast = rng.normal(size=18) @ mixing
        p_values.append(test.chi_square(contrast, 0)[2])
        sums.append(test.of_all(contrast)[1])
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert kstest(sums, "uniform").pvalue > 0.01


def test_the_left_out_sum_is_that_of_leaving_each_out():
    test, _ = gaussian_test(30, np.random.default_rng(6))
    quick = test._left_out(0)
    for j in (0, 7, 29):
        others = np.delete(test.mocks[:, :9], j, axis=0)
        deviation = test.mocks[j, :9] - others.mean(axis=0)
        slow = deviation @ np.linalg.inv(np.cov(others, rowvar=False)) @ deviation
        assert quick[j] == pytest.approx(slow)


def test_a_planted_trend_is_found():
    test, mixing = gaussian_test(40, np.random.default_rng(7))
    trend = np.zeros(18)
    trend[:9] = 5 * np.abs(mixing).sum(axis=0)[:9]
    assert test.chi_square(trend, 0)[2] < 1e-6
    assert test.of_all(trend)[1] == pytest.approx(1 / 41)


@pytest.fixture(scope="module")
def table() -> Table:
    """Half of the sky at nside 32 with varying fractions; the labels are not used."""
    rng = np.random.default_rng(1)
    hpix = np.arange(6144)
    return Table(hpix, np.ones(6144), rng.uniform(0.3, 1, 6144), rng.normal(size=(6144, 1)),
                 ("a",), 32)  # fmt: skip


@pytest.fixture(scope="module")
def grid(table: Table) -> power.Grid:
    return power.Grid.of(table, np.arange(len(table)))


def test_shot_noise_is_the_power_of_poisson_counts(grid):
    rng = np.random.default_rng(2)
    weight = rng.uniform(0.7, 1.3, len(grid.fracgood))
    found, said = [], []
    for _ in range(20):
        label = 0.1 * rng.poisson(5 * grid.fracgood / weight)  # ten galaxies make a label of 1
        found.append(grid.pseudo_power(label * weight)[2:].mean())
        said.append(grid.noise(label, 0.1, weight))
    # Measured: ratio 1.00 +- 0.01 over seeds.
    assert np.mean(found) / np.mean(said) == pytest.approx(1, abs=0.03)


def test_fine_maps_have_the_power_of_coarse_ones(table):
    """A field that is constant in the pixels of nside 128, sampled at nside 256."""
    import healpy

    field = gaussian_field(np.r_[0, 0, np.full(30, 1e-4)], 128, np.random.default_rng(3))
    every = np.arange(12 * 256**2)
    hpix = every[coarse_pixels(every, 256, 128) < 12 * 128**2 // 4]
    fine = Table(hpix, np.ones(len(hpix)), np.full(len(hpix), 0.5), np.zeros((len(hpix), 1)),
                 ("a",), 256)  # fmt: skip
    grid = power.Grid.of(fine, np.arange(len(hpix)))
    assert grid.nside == 128
    label = 0.5 * (1 + field[grid.pixel])
    coarse = np.zeros(12 * 128**2)
    seen = np.unique(grid.pixel)
    mean = label.sum() / grid.fracgood.sum()
    coarse[seen] = 0.5 * ((1 + field[seen]) / mean - 1)
    expected = healpy.anafast(coarse, lmax=256, iter=1)
    np.testing.assert_allclose(grid.pseudo_power(label)[1:], expected[1:], rtol=1e-6)


def test_the_power_law_of_mock_skies_is_found_again(grid):
    """Six skies. Measured: amplitude 0.97 +- 0.04, slope 1.18 +- 0.06 relative to the input."""
    true = null.Clustering(1.5e-3, 1.2, 20.0, 1.0)
    found = []
    for sky in range(6):
        label = null.mock_labels(grid, true, stream(1, "sky", sky))
        measured = power.spectrum(grid, label, 1.0)
        fit = null.fit_clustering(
            grid, measured, 20.0, 1.0, lambda turn, mock, sky=sky: stream(1, sky, turn, mock)
        )
        found.append((fit.amplitude, fit.slope))
    amplitude, slope = np.mean(found, axis=0)
    assert amplitude == pytest.approx(1.5e-3, rel=0.12)
    assert slope == pytest.approx(1.2, abs=0.15)


def test_mock_skies_have_mean_and_unit_of_the_data(grid):
    label = null.mock_labels(grid, null.Clustering(1e-3, 1.2, 0.9, 0.1), stream(1, "m"))
    assert label.sum() / grid.fracgood.sum() == pytest.approx(0.9, rel=0.05)
    assert null.label_unit(label) == pytest.approx(0.1)


def test_unit_of_labels():
    rng = np.random.default_rng(4)
    counts = rng.poisson(6.0, 1000).astype(float)
    assert null.label_unit(counts) == 1
    assert null.label_unit(counts / counts.mean()) == pytest.approx(1 / counts.mean())
    fracgood = rng.uniform(0.3, 1, 1000)
    again = counts / fracgood / counts.mean() * fracgood  # rounding makes equal labels differ
    assert null.label_unit(again) == pytest.approx(1 / counts.mean())
    for n in (30, 1000, 40_000):
        fraction = rng.uniform(0.3, 1, n)
        assert null.label_unit(rng.poisson(6.0, n) / fraction) is None


def test_bands_cover_every_multipole_once():
    for lmax in (32, 64, 256):
        covered = [l for low, high in power.bands(lmax) for l in range(low, high + 1)]  # noqa: E741
        assert covered == list(range(2, lmax + 1))
    assert power.band_power(np.array([9, 9, 1.0, 2.0]), 2, 3) == pytest.approx((5 + 14) / 12)


def test_loss_difference_and_its_error_by_superpixel():
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(50), 40)
    shared = rng.normal(0.5, 1, 50)[group]  # rows of a superpixel go together
    found = loss_difference(shared, np.zeros(2000), group, draws=2000, stream=rng)
    assert found["value"] == pytest.approx(shared.mean())
    assert found["error"] == pytest.approx(np.std(shared[::40]) / np.sqrt(50), rel=0.1)
    assert 0.9 < found["better"] <= 1


def test_recovery_by_hand():
    true = np.array([0.8, 1.0, 1.2])
    same = recovery(3 * true, true)
    assert same["correlation"] == pytest.approx(1)
    assert same["error"] == pytest.approx(0, abs=1e-12)
    none = recovery(np.ones(3), true)
    assert none["correlation"] is None
    assert none["planted"] == pytest.approx(np.sqrt(0.08 / 3))
    assert none["error"] == pytest.approx(np.sqrt((0.25**2 + (1 / 6) ** 2) / 3))
