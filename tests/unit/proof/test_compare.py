"""Comparison of two files in any format: first difference, number and size of differences."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from skyproof.core.formats import contents, write
from skyproof.proof.compare import compare
from skyproof.proof.difference import Tolerance, text_is_close

TOLERANCE = Tolerance(rtol=1e-5, atol=1e-7, mean_pixel=2)
IMAGE = np.arange(60, dtype=np.float32).reshape(5, 4, 3) + np.float32(0.5)
TABLE = np.zeros(4, dtype=[("id", "i8"), ("flux", "f4", (3,)), ("name", "S4")])
TABLE["id"], TABLE["flux"], TABLE["name"] = range(4), np.arange(12).reshape(4, 3), b"abc"


def changed(array: np.ndarray, index: tuple, value: object) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


def table_with(column: str, index: tuple, value: object) -> np.ndarray:
    copy = TABLE.copy()
    copy[column][index] = value
    return copy


def write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


PIXELS = np.full((6, 5, 3), 100, dtype=np.uint8)
OTHER = changed(IMAGE, (3, 1, 2), 47.75)
TEXT = {"x": [1.5, 2.5], "n": [1, 2], "word": ["a", "b,c"]}

CASES = {
    "hdf5 array": (
        "a.hdf5",
        lambda p, new: write.hdf5(p, {"img": OTHER if new else IMAGE, "z": IMAGE}),
        ("img", (3, 1, 2), 1, 60),
    ),
    "hdf5 table": (
        "a.hdf5",
        lambda p, new: write.hdf5(p, {"t": table_with("flux", (2, 1), 9) if new else TABLE}),
        ("t column flux", (2, 1), 1, 12),
    ),
    "hdf5 attribute": (
        "a.hdf5",
        lambda p, new: write.hdf5(p, {"img": IMAGE}, {"bands": "gr" if new else "grz"}),
        ("@bands", (), 1, 1),
    ),
    "fits image": (
        "a.fits",
        lambda p, new: write.fits_image(p, OTHER if new else IMAGE),
        ("HDU 0", (3, 1, 2), 1, 60),
    ),
    "fits compressed": (
        "a.fits.fz",
        lambda p, new: write.fits_image(p, (OTHER if new else IMAGE)[:, :, 2], compress="GZIP_2"),
        ("HDU 1", (3, 1), 1, 20),
    ),
    "fits table": (
        "a.fits",
        lambda p, new: write.fits_table(p, table_with("id", (1,), 7) if new else TABLE),
        ("HDU 1 column id", (1,), 1, 4),
    ),
    "fits card": (
        "a.fits",
        lambda p, new: write.fits_table(p, TABLE, header={"DEPTH": 2.5 if new else 2.0}),
        ("HDU 1 card DEPTH", (), 1, 1),
    ),
    "npy": (
        "a.npy",
        lambda p, new: write.npy(p, OTHER if new else IMAGE),
        ("the array", (3, 1, 2), 1, 60),
    ),
    "npz": (
        "a.npz",
        lambda p, new: np.savez_compressed(p, img=OTHER if new else IMAGE, z=IMAGE),
        ("img", (3, 1, 2), 1, 60),
    ),
    "safetensors": (
        "a.safetensors",
        lambda p, new: write.safetensors(p, {"w": OTHER if new else IMAGE, "b": IMAGE[0]}),
        ("w", (3, 1, 2), 1, 60),
    ),
    "safetensors metadata": (
        "a.safetensors",
        lambda p, new: write.safetensors(p, {"w": IMAGE}, {"epoch": 2 if new else 1}),
        ("@json", (), 1, 1),
    ),
    "parquet": (
        "a.parquet",
        lambda p, new: write.parquet(
            p, {"id": np.arange(3), "score": np.array([0.5, 0.25 if new else 0.75, 1.0])}
        ),
        ("score", (1,), 1, 3),
    ),
    "csv": (
        "a.csv",
        lambda p, new: write.csv(p, TEXT | ({"x": [1.5, 2.75]} if new else {})),
        ("column x", (1,), 1, 2),
    ),
    "json": (
        "a.json",
        lambda p, new: write.json(p, {"auc": {"g": [0.5, 0.6 if new else 0.7]}, "n": 3}),
        ("auc.g", (1,), 1, 2),
    ),
    "png": (
        "a.png",
        lambda p, new: write_png(p, changed(PIXELS, (4, 2, 1), 130) if new else PIXELS),
        ("pixels", (4, 2, 1), 1, 90),
    ),
    "text": (
        "a.md",
        lambda p, new: p.write_text(f"# title\n\np = {'0.02' if new else '0.01'}\n"),
        ("line", (2,), 1, 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_differing_element_is_named(tmp_path, case):
    name, put, expected = CASES[case]
    for folder, new in (("mine", True), ("theirs", False), ("again", False)):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder / name, new)
    mine, theirs, again = (tmp_path / f / name for f in ("mine", "theirs", "again"))
    assert compare(again, theirs, None) == []
    (found,) = compare(mine, theirs, None)
    assert (found.element, found.index, found.count, found.total) == expected
    assert not found.close
    assert found.values[0] != found.values[1]
    assert found.lines()[1].startswith(f"first    {'[' if found.index else ''}")
    if contents.has_container(mine):
        assert contents.content_digest(theirs) == contents.content_digest(again)
        assert contents.content_digest(mine) != contents.content_digest(theirs)


def npy_pair(folder: Path, mine: np.ndarray, theirs: np.ndarray) -> tuple[Path, Path]:
    np.save(folder / "mine.npy", mine)
    np.save(folder / "theirs.npy", theirs)
    return folder / "mine.npy", folder / "theirs.npy"


def test_values_are_shown_in_decimal_and_in_bits_with_their_distance(tmp_path):
    theirs = np.array([1.0, 2.0, -3.0])
    mine = np.array([1.0, np.nextafter(2.0, 3), -3.5])
    (found,) = compare(*npy_pair(tmp_path, mine, theirs), None)
    assert found.values == ("2.0000000000000004 (0x4000000000000001)", "2.0 (0x4000000000000000)")
    assert (found.count, found.max_abs) == (2, 0.5)
    assert found.max_rel == pytest.approx(1 / 6)
    assert found.max_ulp == 2**50  # from -3 to -3.5 in steps of 2**-51


def test_of_long_texts_the_place_is_shown_where_they_differ(tmp_path):
    for name, end in (("a", "mine"), ("b", "theirs")):
        (tmp_path / f"{name}.txt").write_text("x" * 500 + end + "y" * 500)
    (found,) = compare(tmp_path / "a.txt", tmp_path / "b.txt", None)
    assert ["xxmineyy" in found.values[0], "xxtheirsyy" in found.values[1]] == [True, True]
    assert all(len(value) < 80 for value in found.values)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_ulps_count_representable_numbers_across_zero(tmp_path, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    theirs, mine = np.array([-tiny], dtype), np.array([tiny], dtype)
    (found,) = compare(*npy_pair(tmp_path, mine, theirs), None)
    assert found.max_ulp == 2


def test_nan_equals_only_nan_and_zero_has_a_sign(tmp_path):
    theirs = np.array([np.nan, 0.0, 1.0, np.inf])
    assert compare(*npy_pair(tmp_path, theirs.copy(), theirs), TOLERANCE) == []
    (found,) = compare(*npy_pair(tmp_path, np.array([1.0, 0, 1, np.inf]), theirs), TOLERANCE)
    assert (found.index, found.close, found.max_abs) == ((0,), False, np.inf)
    (found,) = compare(*npy_pair(tmp_path, np.array([np.nan, -0.0, 1, np.inf]), theirs), TOLERANCE)
    assert (found.index, found.close, found.max_abs) == ((1,), True, 0)
    (found,) = compare(*npy_pair(tmp_path, np.array([np.nan, 0, 1, -np.inf]), theirs), TOLERANCE)
    assert not found.close


def test_tolerance_is_for_floats_only(tmp_path):
    theirs = np.array([100.0, 1e-9])
    (near,) = compare(*npy_pair(tmp_path, np.array([100.0005, 2e-9]), theirs), TOLERANCE)
    assert near.close
    (far,) = compare(*npy_pair(tmp_path, np.array([100.002, 1e-9]), theirs), TOLERANCE)
    assert not far.close
    (count,) = compare(*npy_pair(tmp_path, np.array([10**9 + 1]), np.array([10**9])), TOLERANCE)
    assert (count.close, count.max_abs) == (False, 1)


@pytest.mark.parametrize(
    ("mine", "close"),
    [
        ("AUC 0.5000001 of 12", True),
        ("AUC 0.51 of 12", False),
        ("AUC 0.5 of 13", False),
        ("AUC 5e-1 of 12", True),
        ("auc 0.5 of 12", False),
    ],
)
def test_words_and_counts_of_a_text_are_never_tolerant(mine, close):
    assert text_is_close(mine, "AUC 0.5 of 12", TOLERANCE) is close
    assert not text_is_close(mine, "AUC 0.5 of 12", None)


def test_figures_are_judged_as_a_whole(tmp_path):
    for name, pixels in (("a", PIXELS), ("b", changed(PIXELS, (0, 0, 0), 250)), ("c", PIXELS + 3)):
        write_png(tmp_path / f"{name}.png", pixels.astype(np.uint8))
    one, few, all_of_it = (tmp_path / f"{name}.png" for name in "abc")
    assert [d.close for d in compare(few, one, TOLERANCE)] == [True]  # mean 1.7 levels of 255
    assert [d.close for d in compare(all_of_it, one, TOLERANCE)] == [False]  # mean 3


def test_other_shapes_types_and_names(tmp_path):
    mine, theirs = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    write.hdf5(mine, {"x": IMAGE[0], "y": IMAGE.astype("f8"), "only": IMAGE})
    write.hdf5(theirs, {"x": IMAGE, "y": IMAGE, "gone": IMAGE})
    problems = {d.element: d.problem for d in compare(mine, theirs, TOLERANCE)}
    assert problems == {
        "only": "is not in the reference",
        "gone": "is missing",
        "x": "is <f4 [4, 3], in the reference <f4 [5, 4, 3]",
        "y": "is <f8 [5, 4, 3], in the reference <f4 [5, 4, 3]",
    }


def test_more_rows_and_the_first_that_differs(tmp_path):
    (found,) = compare(*npy_pair(tmp_path, np.array([1.0, 5, 3, 4]), np.array([1.0, 2, 3])), None)
    assert found.problem == "has 4 rows, the reference 3"
    assert (found.index, found.count) == ((1,), 1)


def test_columns_in_another_order_are_compared_by_name(tmp_path):
    write.csv(tmp_path / "a.csv", {"x": [1.5], "y": [2.5]})
    write.csv(tmp_path / "b.csv", {"y": [2.5], "x": [1.25]})
    (found,) = compare(tmp_path / "a.csv", tmp_path / "b.csv", None)
    assert (found.element, found.values) == ("column x", ("'1.5'", "'1.25'"))


def test_what_cannot_be_read_is_compared_by_bytes(tmp_path):
    (tmp_path / "a.hdf5").write_bytes(b"no hdf5 at all")
    (tmp_path / "b.hdf5").write_bytes(b"no HDF5 at all, longer")
    (found,) = compare(tmp_path / "a.hdf5", tmp_path / "b.hdf5", TOLERANCE)
    assert found.element.startswith("bytes (not readable as .hdf5")
    assert (found.index, found.count) == ((3,), 3)
    assert found.problem == "has 14 bytes, the reference 22"
    assert not found.close


@pytest.mark.parametrize("case", [c for c in CASES if c != "text"])
def test_pieces_make_the_whole(tmp_path, monkeypatch, case):
    """A file read in pieces of a few elements gives the same result as in one piece."""
    name, put, expected = CASES[case]
    for folder, new in (("mine", True), ("theirs", False)):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder / name, new)
    mine, theirs = tmp_path / "mine" / name, tmp_path / "theirs" / name
    whole = compare(mine, theirs, None)
    digest = contents.content_digest(mine) if contents.has_container(mine) else None
    monkeypatch.setattr(contents, "CHUNK_BYTES", 20)
    monkeypatch.setattr(contents, "CHUNK_ROWS", 2)
    assert compare(mine, theirs, None) == whole
    assert whole[0].element == expected[0]
    assert digest is None or contents.content_digest(mine) == digest


def test_memory_is_that_of_a_piece(tmp_path, monkeypatch):
    """No chunk that a reader yields is larger than the limit, for any size of the file."""
    monkeypatch.setattr(contents, "CHUNK_BYTES", 1 << 12)
    array = np.zeros((3, 5000, 2), dtype=np.float64)
    write.hdf5(tmp_path / "a.hdf5", {"x": array})
    write.npy(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", x=array)
    write.safetensors(tmp_path / "a.safetensors", {"x": array})
    write.fits_image(tmp_path / "a.fits", array)
    for path in sorted(tmp_path.iterdir()):
        chunks = [chunk.nbytes for element in contents.elements(path) for chunk in element.chunks()]
        assert sum(chunks) >= array.nbytes, path.name
        assert max(chunks) <= 1 << 12, path.name


def test_the_content_digest_survives_another_container(tmp_path):
    import h5py

    for name, options in (("a", {}), ("b", {"compression": "gzip", "chunks": (1, 4, 3)})):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file.create_dataset(
                "img", data=IMAGE if name == "a" else IMAGE.astype(">f4"), **options
            )
    assert (tmp_path / "a.hdf5").read_bytes() != (tmp_path / "b.hdf5").read_bytes()
    digests = {contents.content_digest(tmp_path / f"{name}.hdf5") for name in "ab"}
    assert len(digests) == 1


def test_a_damaged_file_has_no_content_digest_but_a_checksum(tmp_path):
    (tmp_path / "a.fits").write_bytes(struct.pack("<4q", 1, 2, 3, 4))
    assert contents.fingerprint(tmp_path / "a.fits").keys() == {"size", "sha256"}
    json.dumps(contents.fingerprint(tmp_path / "a.fits"))
