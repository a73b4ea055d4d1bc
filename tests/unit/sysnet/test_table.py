"""The SYSNet table: written and read back, and errors for invalid values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fitsio
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.sysnet.table import Table, check_table, read_table, write_table
from tests.unit.sysnet.build.sky import sky_table


def test_a_table_is_read_back_as_it_was(tmp_path: Path):
    table = dataclasses.replace(sky_table(), labels="density", frame="G")
    write_table(tmp_path / "a.fits", table)
    write_table(tmp_path / "b.fits", table)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    back = read_table(tmp_path / "a.fits")
    for field in dataclasses.fields(Table):
        was, now = getattr(table, field.name), getattr(back, field.name)
        if isinstance(was, np.ndarray):
            assert was.dtype == now.dtype
            np.testing.assert_array_equal(was, now)
        else:
            assert was == now


def test_columns_are_the_originals(tmp_path: Path):
    write_table(tmp_path / "t.fits", sky_table())
    found = {
        name: (form[0].str, form[1] if len(form) > 1 else ())
        for name, form in fitsio.FITS(str(tmp_path / "t.fits"))[1].read().dtype.fields.items()
    }
    assert set(found) == {"label", "hpix", "features", "fracgood"}


def test_one_feature_is_a_column_of_its_own(tmp_path: Path):
    write_table(tmp_path / "t.fits", sky_table(n_features=1))
    assert read_table(tmp_path / "t.fits").features.shape[1] == 1


def changed(field: str, row: int, value: float) -> Table:
    table = sky_table()
    values = getattr(table, field).copy()
    values[row] = value
    return dataclasses.replace(table, **{field: values})


BAD = {
    "nan": (changed("features", 7, np.nan), r"record 7, field template_0: is nan in pixel 7"),
    "infinite": (changed("features", 7, np.inf), r"field template_0: is inf"),
    "no observed fraction": (changed("fracgood", 4, 0.0), r"field fracgood: is 0 .*expected > 0"),
    "negative fraction": (changed("fracgood", 4, -0.5), r"field fracgood: is -0.5"),
    "negative counts": (changed("label", 3, -1), r"record 3, field label: is -1.*expected >= 0"),
    "nan counts": (changed("label", 3, np.nan), r"field label: is nan"),
    "pixel twice": (changed("hpix", 9, 8), r"record 9, field hpix: 8 is repeated"),
    "pixel out of range": (changed("hpix", -1, 3072), r"field hpix: is 3072.*expected 0 to 3071"),
    "negative pixel": (changed("hpix", 0, -1), r"field hpix: is -1"),
    "unsorted": (
        dataclasses.replace(sky_table(), hpix=sky_table().hpix[::-1].copy()),
        r"record 1, field hpix: is less than in the previous row",
    ),
    "nested": (dataclasses.replace(sky_table(), ordering="NESTED"), r"field ORDERING: is 'NESTED'"),
    "unknown frame": (dataclasses.replace(sky_table(), frame="X"), r"field COORDSYS: is 'X'"),
    "nside": (dataclasses.replace(sky_table(), nside=17), r"field NSIDE: is 17"),
    "names": (
        dataclasses.replace(sky_table(), names=("a", "b", "a")),
        r"field FEAT2: 'a' is the name of two features",
    ),
    "no galaxies": (
        dataclasses.replace(sky_table(), label=np.zeros(len(sky_table()))), r"label: is 0 in every",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_errors_by_row_and_field(case: str):
    table, message = BAD[case]
    with pytest.raises(InputError, match=message):
        check_table("t.fits", table)


def test_a_feature_without_spread_is_an_error_by_name():
    table = sky_table()
    table.features[:, 1] = 2.5
    with pytest.raises(InputError, match=r"field template_1: is 2.5 in every row"):
        check_table("t.fits", table)


def test_an_empty_table_is_an_error(tmp_path: Path):
    table = sky_table()
    empty = dataclasses.replace(
        table, hpix=table.hpix[:0], label=table.label[:0], fracgood=table.fracgood[:0],
        features=table.features[:0],
    )  # fmt: skip
    with pytest.raises(InputError, match="has no rows"):
        check_table("t.fits", empty)


@pytest.mark.parametrize("missing", ["label", "hpix", "features", "fracgood"])
def test_a_missing_column_is_an_error_by_name(tmp_path: Path, missing: str):
    write_table(tmp_path / "t.fits", sky_table())
    data, header = fitsio.read(str(tmp_path / "t.fits"), ext=1, header=True)
    kept = [name for name in data.dtype.names if name != missing]
    fitsio.write(str(tmp_path / "u.fits"), data[kept], header=header)
    with pytest.raises(InputError, match=f"field {missing}: has no such column; it has "):
        read_table(tmp_path / "u.fits")


def test_a_missing_card_is_an_error_by_name(tmp_path: Path):
    write_table(tmp_path / "t.fits", sky_table())
    fitsio.write(str(tmp_path / "u.fits"), fitsio.read(str(tmp_path / "t.fits"), ext=1))
    with pytest.raises(InputError, match=r"field FEAT0: is missing in the header"):
        read_table(tmp_path / "u.fits")


def test_what_is_no_table_is_an_error(tmp_path: Path):
    (tmp_path / "t.fits").write_text("no table")
    with pytest.raises(InputError, match=r"t\.fits: cannot be read"):
        read_table(tmp_path / "t.fits")
