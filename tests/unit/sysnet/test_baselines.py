"""The baselines: constant, linear, quadratic and forest, out of fold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.sysnet.baselines import POLYNOMIALS, TrainingRows, out_of_fold
from skyproof.sysnet.folds import TEST, TRAINING, VALIDATION, Folds, write_folds
from skyproof.sysnet.members.losses import constant_densities, mean_loss
from skyproof.sysnet.split import random_rows
from tests.unit.sysnet.build.evaluated import make_sky, products_of, run_baselines, write_sky
from tests.unit.sysnet.build.table import make_folds, make_table

ALL = np.ones((3, 3), bool)


@pytest.fixture
def planted():
    """A table of 600 rows whose labels are a quadratic density without noise, and its folds."""
    table = make_table(600)
    a, b, c = table.features.T
    density = 20 + 2 * a - b + 0.5 * a * b - 0.3 * c**2
    return replace(table, label=density * table.fracgood), make_folds(table), density


def test_a3_constants_of_three_rows_by_hand():
    part = TrainingRows(np.zeros((3, 1)), np.array([2.0, 3.0, 7.0]), np.array([0.5, 0.5, 1.0]))
    found = {n: float(POLYNOMIALS[n](0, part)(np.zeros((1, 1)))[0])
             for n in ("constant", "constant_original")}  # fmt: skip
    assert found == {"constant": 6.0, "constant_original": 4.0}


def test_polynomials_recover_a_polynomial_density(planted):
    table, folds, density = planted
    found = out_of_fold(table, folds, ALL, POLYNOMIALS)
    np.testing.assert_allclose(found["quadratic"], density, rtol=1e-9)
    assert 0.1 < np.std(found["linear"] - density) < 1.0  # it cannot follow the products
    a, b, _ = table.features.T
    line = replace(table, label=(20 + 2 * a - b) * table.fracgood)
    found = out_of_fold(line, folds, ALL, POLYNOMIALS)
    np.testing.assert_allclose(found["linear"], 20 + 2 * a - b, rtol=1e-9)


def test_a_repeated_feature_does_not_change_the_fit(planted):
    """The real table has five nearly collinear dust maps."""
    table, folds, _ = planted
    noisy = replace(table, label=np.random.default_rng(1).poisson(table.label).astype(float))
    doubled = np.concatenate([table.features, table.features[:, :1]], axis=1)
    twice = replace(noisy, features=doubled, names=(*table.names, "again"))
    once = out_of_fold(noisy, folds, ALL, POLYNOMIALS)
    found = out_of_fold(twice, folds, np.ones((3, 4), bool), POLYNOMIALS)
    for name in ("linear", "quadratic"):
        np.testing.assert_allclose(found[name], once[name], rtol=1e-6)


def test_only_the_training_part_is_fitted(planted):
    table, folds, _ = planted
    before = out_of_fold(table, folds, ALL, POLYNOMIALS)
    label = table.label.copy()
    label[folds.part[:, 0] != TRAINING] *= 3  # validation and test part of fold 0
    after = out_of_fold(replace(table, label=label), folds, ALL, POLYNOMIALS)
    tested = folds.rows(0, TEST)
    for name in POLYNOMIALS:
        assert before[name][tested].tobytes() == after[name][tested].tobytes()
        assert not np.array_equal(before[name], after[name])


def test_many_skies_at_once_are_those_one_by_one(planted):
    table, folds, _ = planted
    labels = np.random.default_rng(2).poisson(table.label[:, None] * [1.0, 0.5, 2.0]).astype(float)
    together = out_of_fold(replace(table, label=labels), folds, ALL, POLYNOMIALS)
    for k in range(3):
        alone = out_of_fold(replace(table, label=labels[:, k]), folds, ALL, POLYNOMIALS)
        for name in POLYNOMIALS:
            np.testing.assert_allclose(together[name][:, k], alone[name], rtol=1e-10)


def test_columns_that_are_not_kept_are_not_used(planted):
    table, folds, _ = planted
    features = table.features.copy()
    features[:, 1] = np.random.default_rng(3).normal(size=len(table))
    keep = np.array([[True, False, True]] * 3)
    one = out_of_fold(table, folds, keep, POLYNOMIALS)
    other = out_of_fold(replace(table, features=features), folds, keep, POLYNOMIALS)
    for name in POLYNOMIALS:
        assert one[name].tobytes() == other[name].tobytes()


def test_predictions_are_positive_where_a_line_is_not():
    table = make_table(300)
    steep = replace(table, label=np.maximum(5 + 9 * table.features[:, 0], 0) * table.fracgood)
    found = out_of_fold(steep, make_folds(table), ALL, POLYNOMIALS)
    for values in found.values():
        assert (values > 0).all()
    assert found["linear"].min() < 0.11 * found["constant"].max()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A linear mock of 1,500 pixels with the inputs of the stage."""
    return write_sky(tmp_path_factory.mktemp("sky"), make_sky("linear", nside=16))


def test_the_stage_writes_all_models_in_the_tables_order(files):
    found = products_of(files.baselines)
    table = products_of(files.table)
    assert found.dtype.names == (
        "hpix", "fold", "constant", "constant_original", "linear", "quadratic", "forest"
    )  # fmt: skip
    np.testing.assert_array_equal(found["hpix"], table["hpix"])
    assert set(found["fold"]) == set(range(5))
    for name in found.dtype.names[2:]:
        assert (found[name] > 0).all()


def test_the_number_of_threads_does_not_change_the_bytes(files):
    before = files.baselines.read_bytes()
    run_baselines(files, threads=2, n_trees=4)
    assert files.baselines.read_bytes() == before


def test_a_single_fold_predicts_its_test_part_only(tmp_path):
    sky = make_sky("linear", nside=16)
    folds = replace(sky.folds, part=sky.folds.part[:, :1])
    files = write_sky(tmp_path, replace(sky, folds=folds))
    found = products_of(files.baselines)
    tested = folds.part[:, 0] == TEST
    np.testing.assert_array_equal(found["fold"] == 0, tested)
    assert np.isfinite(found["forest"][tested]).all()
    assert np.isnan(found["forest"][~tested]).all()
    assert len(products_of(files.selection)) == tested.sum()


def test_folds_of_another_table_are_errors(files, tmp_path):
    folds = make_folds(make_table())
    write_folds(tmp_path / "folds.fits", Folds(folds.hpix, folds.group, folds.part))
    other = type(files)(**{**vars(files), "folds": tmp_path / "folds.fits"})
    with pytest.raises(InputError, match=r"folds\.fits, field hpix: has other pixels"):
        run_baselines(other)


def constant_losses(path: Path, loss: str, n_folds: int) -> np.ndarray:
    """Return the losses [folds, parts] of the original's constant on its own random rows."""
    rows = fitsio.read(str(path))
    label, fracgood = (rows[name].astype("f8") for name in ("label", "fracgood"))
    part, _ = random_rows(path, len(rows), n_folds)
    found = np.empty((n_folds, 3))
    for fold, parts in enumerate(part.T):
        train = parts == TRAINING
        base = constant_densities(label[train], fracgood[train])["base"]
        for which in (TRAINING, VALIDATION, TEST):
            here = parts == which
            density = np.full(here.sum(), base)
            found[fold, which] = mean_loss(loss, "original", density, label[here], fracgood[here])
    return found


@pytest.mark.real
def test_s06_the_originals_constant_on_red_galaxies(real_data):
    """The original prints 0.86045 for this table, mean over its five test folds."""
    path = real_data / "sysnet/decals_lrg_table_nside256_ring.fits"
    assert constant_losses(path, "pnll", 5)[:, TEST].mean() == pytest.approx(0.86045, abs=5e-6)


@pytest.mark.real
def test_s06_the_originals_constant_on_emission_line_galaxies(real_data):
    """The table of the source document: 187,257 rows; training, validation, test of 60/20/20."""
    found = sorted((real_data / "sysnet").glob("eBOSS*.fits"))
    if not found:
        pytest.skip("the source document's table, sysnet/eBOSS*.fits, is not among the real inputs")
    (likelihood,), (square,) = (constant_losses(found[0], loss, 1) for loss in ("pnll", "mse"))
    assert likelihood == pytest.approx([0.966767, 0.966910, 0.966667], abs=1e-6)
    assert square == pytest.approx([0.140, 0.142, 0.144], abs=5e-4)
