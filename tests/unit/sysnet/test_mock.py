"""Mock skies: known truth, the same bytes for any number of ranks, and the formulas."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest

from skyproof.core.errors import UsageError
from skyproof.core.options import from_words
from skyproof.core.seeds import stream
from skyproof.sysnet import mock
from skyproof.sysnet.mocks.fields import gaussian_field
from skyproof.sysnet.mocks.imaging import NAMES
from skyproof.sysnet.options import Mock
from skyproof.sysnet.table import read_table
from tests.conftest import skyproof, tree_bytes

KINDS = ("none", "linear", "quadratic", "nonlinear")


def run_stage(folder: Path, *words: str, ranks: int = 1) -> dict[str, bytes]:
    outputs = (f"table={folder}/table.fits", f"truth={folder}/truth.fits")
    done = skyproof("sysnet.mock", "--out", *outputs, "--nside", "16", *words, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return tree_bytes(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mock")
    run_stage(folder, "--nside", "64")  # several blocks of pixels
    return folder


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_do_not_change_the_bytes(made: Path, tmp_path: Path, ranks: int):
    assert run_stage(tmp_path, "--nside", "64", ranks=ranks) == tree_bytes(made)


def test_the_stage_writes_the_table_that_make_mock_makes(made: Path):
    table, survey, galaxies = mock.make_mock(Mock(nside=64))
    written = read_table(made / "table.fits")
    np.testing.assert_array_equal(written.hpix, table.hpix)
    np.testing.assert_allclose(written.features, table.features, rtol=1e-12)
    truth = fitsio.read(str(made / "truth.fits"), ext=1)
    np.testing.assert_allclose(truth["contamination"], survey.contamination, rtol=1e-12)
    np.testing.assert_allclose(truth["delta"], galaxies.delta, atol=1e-10)


def test_the_truth_lists_the_active_templates(made: Path, tmp_path: Path):
    header = fitsio.read_header(str(made / "truth.fits"), ext=1)
    assert header["CONTAM"] == "nonlinear"
    assert tuple(header[f"ACTIVE{i}"] for i in range(header["NACTIVE"])) == mock.ACTIVE
    run_stage(tmp_path, "--contamination", "none")
    assert fitsio.read_header(str(tmp_path / "truth.fits"), ext=1)["NACTIVE"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_contamination_has_mean_1_and_the_scatter_asked_for(kind: str):
    _, survey, _ = mock.make_mock(Mock(nside=32, contamination=kind, rms=0.1))  # type: ignore[arg-type]
    assert survey.contamination.mean() == pytest.approx(1)
    assert survey.contamination.std() == pytest.approx(0 if kind == "none" else 0.1, abs=1e-3)
    assert survey.contamination.min() > 0


def explained(survey: mock.Survey, degree: int) -> float:
    """The fraction of the contamination's variance explained by a polynomial of all templates."""
    t = survey.imaging.templates
    t = (t - t.mean(axis=0)) / t.std(axis=0)
    columns = [np.ones((len(t), 1)), t]
    if degree == 2:
        i, j = np.triu_indices(t.shape[1])
        columns.append(t[:, i] * t[:, j])
    design = np.concatenate(columns, axis=1)
    model = design @ np.linalg.lstsq(design, survey.contamination, rcond=None)[0]
    return 1 - float(np.var(survey.contamination - model) / np.var(survey.contamination))


def test_each_kind_is_beyond_the_simpler_models():
    surveys = {k: mock.make_mock(Mock(nside=64, contamination=k))[1] for k in KINDS[1:]}  # type: ignore[arg-type]
    assert explained(surveys["linear"], 1) == pytest.approx(1)
    # Measured at nside 64: 0.580 of the quadratic by a linear model, 1.000 by a quadratic one; of
    # the nonlinear 0.486 and 0.671.
    assert explained(surveys["quadratic"], 1) < 0.75
    assert explained(surveys["quadratic"], 2) > 0.99
    assert explained(surveys["nonlinear"], 1) < 0.65
    assert explained(surveys["nonlinear"], 2) < 0.8


def test_thirteen_templates_are_inert():
    _, survey, _ = mock.make_mock(Mock(nside=16, contamination="nonlinear"))
    for i, name in enumerate(NAMES):
        changed = survey.imaging.templates.copy()
        changed[:, i] = changed[::-1, i]
        other = mock.contamination(changed, "nonlinear", 0.12)
        assert np.array_equal(other, survey.contamination) == (name not in mock.ACTIVE)
    assert len(NAMES) - len(mock.ACTIVE) == 13


def test_bands_are_correlated_and_depth_follows_from_the_other_templates():
    table, _, _ = mock.make_mock(Mock(nside=32))
    with_each_other = np.corrcoef(table.features.T)
    at = {name: i for i, name in enumerate(NAMES)}
    for what in ("seeing", "sky", "exptime", "mjd"):
        # Planted: (shared + smooth) / all = 0.65.
        assert 0.5 < with_each_other[at[f"{what}_r"], at[f"{what}_z"]] < 0.8
    assert with_each_other[at["depth_g"], at["seeing_g"]] < -0.3
    assert with_each_other[at["depth_g"], at["sky_g"]] > 0.3
    assert with_each_other[at["ebv"], at["ln_hi"]] > 0.6


def test_counts_are_poisson_about_what_is_expected():
    _, survey, galaxies = mock.make_mock(Mock(nside=64, density=8))
    expected = 8 * survey.fracgood * survey.contamination * (1 + galaxies.delta)
    np.testing.assert_allclose(galaxies.expected, expected)
    pull = (galaxies.counts - expected) / np.sqrt(expected)
    n = len(pull)
    assert abs(pull.mean()) < 4 / np.sqrt(n)
    assert abs(pull.var() - 1) < 4 * np.sqrt(2.2 / n)


def test_the_field_has_the_power_it_was_given():
    import healpy

    power = mock.field_power(32, 0.05)
    skies = [gaussian_field(power, 32, stream(1, "test", i)) for i in range(40)]
    measured = np.mean([healpy.anafast(sky, lmax=63) for sky in skies], axis=0)
    l = np.arange(2, 64)  # noqa: E741
    pull = (measured[2:] / power[2:64] - 1) * np.sqrt((2 * l + 1) * len(skies) / 2)
    assert np.abs(pull).max() < 4.5
    # A22: the lognormal field has mean 0 and variance exp(s^2) - 1 (0.0513).
    delta = np.expm1(np.concatenate(skies) - 0.05 / 2)
    assert abs(delta.mean()) < 0.005
    assert delta.var() == pytest.approx(np.expm1(0.05), rel=0.1)


def test_skies_of_a_survey_differ_in_their_galaxies_only():
    first, second = (mock.make_mock(Mock(nside=16, realisation=i)) for i in (0, 1))
    np.testing.assert_array_equal(first[0].features, second[0].features)
    np.testing.assert_array_equal(first[0].fracgood, second[0].fracgood)
    assert abs(np.corrcoef(first[2].delta, second[2].delta)[0, 1]) < 0.2
    other = mock.make_mock(Mock(nside=16, seed=1))
    assert (other[0].features != first[0].features).all()


def test_contaminated_and_clean_skies_have_the_same_galaxies():
    clean = mock.make_mock(Mock(nside=16, contamination="none"))
    dirty = mock.make_mock(Mock(nside=16, contamination="linear"))
    np.testing.assert_array_equal(clean[2].delta, dirty[2].delta)


def test_a_resolution_that_healpix_lacks_is_an_error():
    with pytest.raises(UsageError, match="nside: expected a power of 2, got 48"):
        from_words(Mock, {"nside": "48"})
