"""Stamps: pixels, edges, files that are read back, and errors of bad files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.obiwan.stamps import reader, writer
from skyproof.obiwan.stamps.geometry import STAMP
from skyproof.obiwan.survey import stamp_dtype
from skyproof.sky.stamps import centre_pixel


def table(n: int, rs: bytes = b"rs0", bands: str = "grz") -> np.ndarray:
    rows = np.zeros(n, stamp_dtype(bands))
    rows["id"], rows["rs"], rows["brick"], rows["type"] = np.arange(n) + 7, rs, b"1211p060", b"EXP"
    rows["mag_g"] = 22 + np.arange(n)
    return rows


def pixels(n: int, n_bands: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    img, ivar = (draw.random((n, STAMP, STAMP, n_bands), "f4") for _ in range(2))
    return img, ivar


def test_the_typical_weight_is_the_median_of_every_fourth_pixel():
    stamp = pixels(130)[0]
    stamp[5] = 0
    expected = np.median(stamp[:, ::4, ::4], axis=(1, 2))
    np.testing.assert_array_equal(writer.typical(stamp), expected)
    assert writer.typical(stamp[:0]).shape == (0, 3)


@pytest.mark.parametrize("layout", ["array", "original"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_files_read_back(tmp_path, layout, n):
    img, ivar = pixels(n)
    writer.write_stamps(tmp_path / "s.hdf5", img, ivar, table(n), layout)
    rows = table(n)
    for index, band in enumerate("grz"):
        rows[f"ivar_{band}"] = writer.typical(ivar)[:, index]
    result = reader.read_stamps(tmp_path / "s.hdf5")
    for read, wrote in zip(result, (img, ivar, rows), strict=True):
        assert read.dtype == wrote.dtype
        np.testing.assert_array_equal(read, wrote)


def test_the_original_layout_has_a_group_per_source(tmp_path):
    img, ivar = pixels(2)
    writer.write_stamps(tmp_path / "s.hdf5", img, ivar, table(2), "original")
    with h5py.File(tmp_path / "s.hdf5") as file:
        assert sorted(file) == ["7", "8", "table"]
        np.testing.assert_array_equal(file["8/img"], img[1])
        np.testing.assert_array_equal(file["8/ivar"], ivar[1])


def test_the_original_layout_keeps_realisations_apart(tmp_path):
    rows = np.concatenate([table(1, b"rs0"), table(1, b"rs300")])  # both have id 7
    img, ivar = pixels(2)
    writer.write_stamps(tmp_path / "s.hdf5", img, ivar, rows, "original")
    with h5py.File(tmp_path / "s.hdf5") as file:
        assert sorted(file) == ["rs0-7", "rs300-7", "table"]
    np.testing.assert_array_equal(reader.read_stamps(tmp_path / "s.hdf5")[0], img)


@pytest.mark.parametrize("layout", ["array", "original"])
def test_equal_stamps_make_equal_bytes(tmp_path, layout):
    for name in ("a", "b"):
        writer.write_stamps(tmp_path / name, *pixels(3), table(3), layout)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("layout", ["array", "original"])
def test_block_by_block_makes_the_bytes_of_all_at_once(tmp_path, layout, monkeypatch):
    img, ivar = pixels(7)
    writer.write_stamps(tmp_path / "a", img, ivar, table(7), layout)
    with writer.StampWriter(tmp_path / "b", table(7), "grz", layout) as file:
        for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
            file.add(img[rows], ivar[rows])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_cutting_in_blocks_of_any_size(tmp_path, plane, monkeypatch):
    rows = table(9, bands="g")
    rows["x"], rows["y"] = np.linspace(40, 120, 9), np.linspace(110, 35, 9)
    planes = {"img": plane[None], "ivar": plane[None] + 1}
    for block in (2, 9, 64):
        monkeypatch.setattr(writer, "BLOCK", block)
        with writer.StampWriter(tmp_path / f"{block}", rows, "g", "array") as file:
            file.cut(planes, rows[:5])
            file.cut(planes, rows[5:])
    contents = {(tmp_path / name).read_bytes() for name in ("2", "9", "64")}
    assert len(contents) == 1
    img, ivar, _ = reader.read_stamps(tmp_path / "2")
    cx, cy = centre_pixel(rows["x"], rows["y"])
    np.testing.assert_array_equal(img[:, 32, 32, 0], plane[cy, cx])
    np.testing.assert_array_equal(ivar, img + 1)


def test_a_writer_requires_a_stamp_for_each_row(tmp_path):
    with (
        pytest.raises(ValueError, match="2 stamps for 3 rows"),
        writer.StampWriter(tmp_path / "s", table(3), "grz", "array") as file,
    ):
        file.add(*pixels(2))


def _missing(path):
    path.unlink()


def _truncated(path):
    path.write_bytes(path.read_bytes()[:20_000])


def _foreign(path):
    path.write_text("id,score\n")


def _edit(path, name, value):
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value


FAULTS = [
    (_missing, "does not exist"),
    (_truncated, "cannot be read: "),
    (_foreign, "cannot be read: "),
    (lambda path: _edit(path, "table", None), "field table: has no such dataset"),
    (lambda path: _edit(path, "table", np.arange(3)), "field id: has no such column"),
    (lambda path: _edit(path, "ivar", None), "field ivar: has no such dataset"),
    (lambda path: _edit(path, "img", np.zeros((2, 64, 64, 3), "f4")), "field img: has shape [2,"),
    (lambda path: _edit(path, "ivar", np.zeros((3, 64, 64, 2), "f4")), "field ivar: has shape [3,"),
]


@pytest.mark.parametrize(("break_it", "says"), FAULTS)
def test_a_bad_file_is_reported(tmp_path, break_it, says):
    path = tmp_path / "s.hdf5"
    writer.write_stamps(path, *pixels(3), table(3), "array")
    break_it(path)
    with pytest.raises(InputError) as caught:
        reader.read_stamps(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_source_missing_in_the_original_layout_is_named(tmp_path):
    writer.write_stamps(tmp_path / "s.hdf5", *pixels(3), table(3), "original")
    _edit(tmp_path / "s.hdf5", "7/img", np.zeros((65, 65, 3), "f4"))
    with pytest.raises(InputError, match="field 7/img: has shape"):
        reader.read_stamps(tmp_path / "s.hdf5")
    writer.write_stamps(tmp_path / "s.hdf5", *pixels(3), table(3), "original")
    _edit(tmp_path / "s.hdf5", "8/ivar", None)
    with pytest.raises(InputError, match="field 8/ivar: has no such dataset"):
        reader.read_stamps(tmp_path / "s.hdf5")


@pytest.mark.parametrize("bands", ["grz", "gr", "r", "griz"])
def test_rgb_is_grey_for_equal_light_and_red_for_red(bands):
    scale = np.array([reader._RGB_SCALES[band] for band in bands], "f4")
    img = np.zeros((2, STAMP, STAMP, len(bands)), "f4")
    img[0] = 0.1 / scale
    img[1, ..., -1] = 5
    colours = reader.rgb(img, bands)
    assert colours.shape == (2, STAMP, STAMP, 3)
    assert colours.dtype == np.uint8
    assert np.ptp(colours[0].astype(int), axis=-1).max() <= 1
    red, _, blue = colours[1, 0, 0].astype(int)
    assert red == 255
    assert (red > blue) == (len(bands) > 1)
    assert reader.rgb(img[:0], bands).shape == (0, STAMP, STAMP, 3)


def test_rgb_of_noise_around_zero_is_dark_and_not_clipped():
    noise = np.random.default_rng(2).normal(0, 0.002, (1, STAMP, STAMP, 3)).astype("f4")
    colours = reader.rgb(noise, "grz")
    assert 5 < colours.mean() < 40
    assert (colours == 0).mean() < 0.1
