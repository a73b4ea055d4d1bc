"""Stamps of broken bricks: each is reported, the others are processed."""

from __future__ import annotations

import fitsio
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.obiwan import survey
from tests.conftest import one_line, tree_bytes
from tests.unit.core.test_stage import mounted
from tests.unit.obiwan.build.bricks import (
    BRICK,
    NAMES,
    PIXELS,
    command,
    listed,
    pixel_names,
    read,
    run,
    tractor,
    write_brick,
    write_plane,
    write_table,
)


def test_broken_pixels_are_masked_and_counted(root, out):
    image, ivar = pixel_names(1), np.full((PIXELS, PIXELS), 200, "f4")
    image[60, 50], image[61, 50], ivar[62, 50], ivar[63, 50], ivar[64, 50] = (
        np.nan, np.inf, np.nan, -1, 0,
    )  # fmt: skip
    image[65, 50], ivar[65, 50] = np.nan, 0  # masked anyway: nothing is lost
    write_plane(root, "image", "r", image)
    write_plane(root, "invvar", "r", ivar)
    assert run(root, out)[BRICK]["info"]["broken_pixels"] == 4
    img, weight, table = read(out, "real")
    assert np.isfinite(img).all()
    assert np.isfinite(weight).all()
    assert (weight >= 0).all()
    row = int(np.flatnonzero(np.abs(table["x"] - 40.3) < 0.01)[0])
    x, y = 50 - (40 - 32), 60 - (51 - 32)
    assert weight[row, x, y : y + 6, 1].tolist() == [0] * 6
    assert img[row, x, y : y + 6, 1].tolist() == [0, 0, 0, 0, pixel_names(1)[64, 50], 0]


def _remove(root, brick):
    survey.image_path(root, brick, "invvar", "z", "rs0").unlink()


def _truncate(root, brick):
    path = survey.image_path(root, brick, "image", "r", "rs0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _not_fits(root, brick):
    survey.image_path(root, brick, "image", "g", "rs0").write_text("<html>404</html>")


def _nan_filled(root, brick):
    image = pixel_names(0)
    image[: PIXELS // 2 + 1] = np.nan
    write_plane(root, "image", "g", image, brick)


def _all_nan(root, brick):
    write_plane(root, "image", "g", np.full((PIXELS, PIXELS), np.nan, "f4"), brick)


def _all_masked(root, brick):
    write_plane(root, "invvar", "r", np.zeros((PIXELS, PIXELS), "f4"), brick)


def _wrong_shape(root, brick):
    write_plane(root, "image", "z", np.zeros((PIXELS, PIXELS - 1), "f4"), brick)


def _no_column(root, brick):
    path = tractor(root, brick)
    rows = fitsio.read(path)
    write_table(path, {name: rows[name] for name in rows.dtype.names if name != "flux_ivar_r"})


def _no_simcat(root, brick):
    survey.simcat_path(root, brick, "rs0").unlink()


def _no_catalogue(root, brick):
    tractor(root, brick).unlink()


FAULTS = [
    (_remove, "invvar-z.fits.fz: does not exist"),
    (_truncate, "image-r.fits.fz: cannot be read: "),
    (_not_fits, "image-g.fits.fz: cannot be read: "),
    (_nan_filled, "image-g.fits.fz: 12960 of 25600 exposed pixels are not finite"),
    (_all_nan, "image-g.fits.fz: every pixel is NaN"),
    (_all_masked, "invvar-r.fits.fz: masks every pixel"),
    (_wrong_shape, "image-z.fits.fz: is 159 x 160 pixels"),
    (_no_column, "field flux_ivar_r: has no such column"),
    (_no_simcat, "simcat-elg-1213p060.fits: does not exist"),
    (_no_catalogue, "tractor-1213p060.fits: does not exist"),
]


@pytest.mark.parametrize(("break_it", "says"), FAULTS)
def test_a_bad_brick_is_reported_and_the_others_continue(root, out, break_it, says):
    """A planted bad brick is an error without skip_bad, and listed with it."""
    bad = NAMES[1]
    write_brick(root, bad)
    break_it(root, bad)
    bricks = listed(root, *NAMES[:2])
    with pytest.raises(InputError) as caught:
        run(root, out, bricks)
    assert f"1 items failed ({bad}), the other 1 are finished" in str(caught.value)
    assert says in str(caught.value)
    assert not (out / "block.json").exists()
    items = run(root, out, bricks, skip_bad=True)
    assert says in items[bad]["info"]["bad"]
    assert items[bad]["files"] == []
    assert len(items[BRICK]["files"]) == 6
    assert not [name for name in tree_bytes(out) if bad in name or ".tmp" in name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# nothing\n\n", "has no brick name"),
        ("1211p060\n1211p060\n", "record 1211p060: is repeated"),
        ("../../etc\n", "record ../../etc: is not a brick name"),
        (b"\xff\xfe\x00", "cannot be read: 'utf-8' codec"),
    ],
)
def test_a_bad_list_of_bricks(root, out, text, says):
    path = root / "bricks.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        run(root, out, path)
    assert says in str(caught.value)


def test_a_bad_brick_ends_the_command_with_3(root, out):
    _truncate(root, BRICK)
    listed(root)
    result = command(root, out)
    assert result.returncode == 3
    assert "1211p060-image-r.fits.fz: cannot be read: " in one_line(result)


@pytest.mark.parametrize("layout", ["array", "original"])
def test_a_full_disk_ends_the_command_with_4(root, tmp_path, layout):
    """HDF5 crashes if a disk fills up while it writes: the space is reserved beforehand."""
    listed(root)
    with mounted(tmp_path / "small", "size=400k") as folder:
        result = command(root, folder, "--layout", layout)
        assert result.returncode == 4
        assert "No space left on device" in one_line(result)
        assert str(folder) in one_line(result)
        assert tree_bytes(folder) == {}
