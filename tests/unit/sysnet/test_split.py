"""Folds: separate sky by default, the original's rows as an option, and the check for leaks."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from skyproof.core.errors import InputError, UsageError
from skyproof.sysnet.folds import (
    TEST,
    TRAINING,
    VALIDATION,
    Folds,
    check_folds,
    read_folds,
    write_folds,
)
from skyproof.sysnet.options import Split
from skyproof.sysnet.split import make_folds, random_rows
from skyproof.sysnet.table import Table, write_table
from tests.conftest import one_line, skyproof
from tests.unit.sysnet.build.sky import sky_table

PARTS = (TRAINING, VALIDATION, TEST)


def folds_of(table: Table | None = None, **options: object) -> Folds:
    return make_folds("t.fits", table or sky_table(nside=32), Split(**options))  # type: ignore[arg-type]


def test_tests_tile_the_rows_once():
    folds = folds_of()
    tested = np.concatenate([folds.rows(fold, TEST) for fold in range(5)])
    np.testing.assert_array_equal(np.sort(tested), np.arange(len(folds.hpix)))
    assert set(folds.tested_by()) == set(range(5))


@pytest.mark.parametrize("n_folds", [1, 2, 5, 9])
def test_no_superpixel_is_in_two_parts(n_folds: int):
    folds = folds_of(n_folds=n_folds)
    for fold in range(n_folds):
        groups = [set(folds.group[folds.rows(fold, part)]) for part in PARTS]
        assert all(groups)
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_parts_are_balanced_in_rows_and_galaxies():
    table = sky_table(nside=32)
    folds = folds_of(table)
    for fold in range(5):
        for part, share in zip(PARTS, (0.6, 0.2, 0.2), strict=True):
            rows = folds.rows(fold, part)
            # Measured: at most 0.008 off, with 16 rows a superpixel and 8602 rows.
            assert len(rows) / len(table) == pytest.approx(share, abs=0.015)
            assert table.label[rows].sum() / table.label.sum() == pytest.approx(share, abs=0.015)


def test_membership_does_not_depend_on_the_resolution_of_the_pixels():
    fine, coarse = (
        folds_of(sky_table(nside=32), n_folds=1),
        folds_of(sky_table(nside=16), n_folds=1),
    )
    assert set(np.unique(fine.group)) == set(np.unique(coarse.group))
    again = folds_of(sky_table(nside=32), n_folds=1)
    np.testing.assert_array_equal(fine.part, again.part)
    other = folds_of(sky_table(nside=32), n_folds=1, seed=1)
    assert (fine.part != other.part).any()


def test_s03_original_sizes():
    part, _ = random_rows("t.fits", 187_257, 5)
    sizes = [int((part[:, fold] == TEST).sum()) for fold in range(5)]
    assert sizes == [37452, 37452, 37451, 37451, 37451]
    assert ((part == TEST).sum(axis=1) == 1).all()
    for fold in range(5):
        assert (part[:, fold] == VALIDATION).sum() == sizes[fold]
        assert 112_353 <= (part[:, fold] == TRAINING).sum() <= 112_355


def original_k_folds(n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The original's own lines: numpy's global generator, seeded, then drawn from fold by fold."""
    from sklearn.model_selection import KFold

    np.random.seed(85)
    divisions = []
    for rest, test in KFold(5, shuffle=True, random_state=85).split(np.arange(n)):
        validation = np.random.choice(rest, size=test.size, replace=False)
        divisions.append((np.setdiff1d(rest, validation), validation, test))
    return divisions


def test_rows85_are_the_originals_rows_in_its_order():
    folds = folds_of(fold_scheme="rows85")
    for fold, division in enumerate(original_k_folds(len(folds.hpix))):
        for part, rows in enumerate(division):
            np.testing.assert_array_equal(folds.rows(fold, part), rows)


def test_one_random_division_is_the_originals():
    from sklearn.model_selection import train_test_split

    folds = folds_of(fold_scheme="rows85", n_folds=1)
    rest, test = train_test_split(np.arange(len(folds.hpix)), test_size=0.2, random_state=85)
    training, validation = train_test_split(rest, test_size=0.25, random_state=85)
    np.testing.assert_array_equal(folds.rows(0, TEST), test)
    np.testing.assert_array_equal(folds.rows(0, VALIDATION), validation)
    np.testing.assert_array_equal(folds.rows(0, TRAINING), training)


# Guards against a change of scikit-learn or numpy: the draws must be those of the original.
GOLDEN = {
    1: "fe5b6bcfb1ac7726e58148790fafed2bd0a561934636051d56a1a625aac40042",
    5: "3464b5edfd68c2482fc4399c1a1af203d3701ee1a1707dc3eac7cb476150ee5c",
}


@pytest.mark.parametrize("n_folds", GOLDEN)
def test_rows85_do_not_change_with_libraries(n_folds: int):
    part, place = random_rows("t.fits", 41_653, n_folds)
    digest = hashlib.sha256(part.tobytes() + place.astype("<i8").tobytes()).hexdigest()
    assert digest == GOLDEN[n_folds]


@pytest.mark.parametrize("scheme", ["spatial", "rows85"])
def test_folds_are_read_back_as_they_were(tmp_path: Path, scheme: str):
    folds = folds_of(fold_scheme=scheme)
    write_folds(tmp_path / "a.fits", folds)
    back = read_folds(tmp_path / "a.fits", sky_table(nside=32))
    for field in dataclasses.fields(Folds):
        was, now = getattr(folds, field.name), getattr(back, field.name)
        np.testing.assert_array_equal(was, now)


def test_a_single_fold_keeps_its_shape(tmp_path: Path):
    write_folds(tmp_path / "a.fits", folds_of(n_folds=1))
    table = sky_table(nside=32)
    assert read_folds(tmp_path / "a.fits", table).part.shape == (len(table), 1)


def leak(part: int, into: int) -> Folds:
    """Folds in which one row of a superpixel has moved to another part of fold 0."""
    folds = folds_of()
    planted = folds.part.copy()
    planted[folds.rows(0, part)[0], 0] = into
    return dataclasses.replace(folds, part=planted)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (leak(TRAINING, VALIDATION), r"superpixel \d+ is in the training and validation parts of"),
        (leak(TEST, TRAINING), r"is tested by 0 folds"),
        (leak(TRAINING, TEST), r"is tested by 2 folds"),
    ],
)
def test_planted_leaks_are_errors(tmp_path: Path, folds: Folds, message: str):
    write_folds(tmp_path / "folds.fits", folds)
    with pytest.raises(InputError, match=message):
        read_folds(tmp_path / "folds.fits", sky_table(nside=32))


def test_a_leak_into_the_test_part_of_a_single_fold_is_an_error():
    folds = folds_of(n_folds=1)
    planted = folds.part.copy()
    planted[folds.rows(0, TEST)[0], 0] = TRAINING
    with pytest.raises(InputError, match=r"in the training and test parts of fold 0"):
        check_folds("folds.fits", dataclasses.replace(folds, part=planted))


def test_too_few_rows_or_superpixels_are_errors():
    table = sky_table(nside=16)
    few = Table(table.hpix[:4], table.label[:4], table.fracgood[:4], table.features[:4],
                table.names, 16)  # fmt: skip
    with pytest.raises(InputError, match=r"covers \d superpixels.*at least 5 for 5 folds"):
        folds_of(few)
    with pytest.raises(InputError, match="has 4 rows; expected at least 5"):
        folds_of(few, fold_scheme="rows85")


def test_superpixels_finer_than_pixels_are_errors():
    with pytest.raises(UsageError, match="nside_group: is 64; expected a power of 2 up to"):
        folds_of(nside_group=64)


def test_the_stage_writes_folds_and_reports_errors_in_one_line(tmp_path: Path):
    write_table(tmp_path / "t.fits", sky_table())
    out = tmp_path / "folds.fits"
    words = ("--out", f"folds={out}")
    done = skyproof("sysnet.split", "--in", f"table={tmp_path}/t.fits", *words)
    assert done.returncode == 0, done.stderr
    assert read_folds(out, sky_table()).n_folds == 5
    out.unlink()
    failed = skyproof(
        "sysnet.split", "--in", f"table={tmp_path}/none.fits", "--out", f"folds={out}"
    )
    assert failed.returncode == 3
    assert "none.fits" in one_line(failed)
    assert not out.exists()
