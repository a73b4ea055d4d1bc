"""Readers return what was written; every error of a file is one line with its name."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import fitsio
import numpy as np
import pytest
from astropy.io import fits

from skyproof.core.errors import EnvironmentProblem, InputError
from skyproof.core.formats import read, write

N = 1000
COLUMNS = {
    "ra": np.linspace(0, 360, N),
    "objid": np.arange(N),
    "mag": np.linspace(18, 24, N).astype("f4"),
}
PAIRS = np.arange(2.0 * N).reshape(N, 2)
IMAGE = np.arange(600.0, dtype="f4").reshape(20, 30)


class Format(NamedTuple):
    """A file of known content, a reader of it, and a reader with a name that it lacks."""

    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    lacking: Callable[[Path], Any] | None = None


@dataclass(frozen=True)
class AForm:
    a: list[int]
    pair: tuple[int, float] = (0, 0.0)
    names: dict[Literal["x", "y"], str | None] = field(default_factory=dict)


FORMATS = {
    "text": Format(lambda p: write.json(p, [1]), read.text),
    "json": Format(lambda p: write.json(p, {"a": list(range(N))}), read.json),
    "form": Format(lambda p: write.json(p, {"a": list(range(N))}), lambda p: read.form(p, AForm)),
    "csv": Format(
        lambda p: write.csv(p, COLUMNS),
        lambda p: read.csv(p, list(COLUMNS)),
        lambda p: read.csv(p, ["b"]),
    ),
    "numbers": Format(lambda p: np.savetxt(p, PAIRS), read.numbers),
    "npy": Format(lambda p: write.npy(p, PAIRS), read.npy),
    "npy mapped": Format(lambda p: write.npy(p, PAIRS), lambda p: read.npy(p, mapped=True)),
    "npy object": Format(lambda p: write.npy(p, PAIRS), read.npy_object),
    "npz": Format(lambda p: write.npz(p, COLUMNS), read.npz),
    "hdf5": Format(lambda p: write.hdf5(p, COLUMNS), read.hdf5, lambda p: read.hdf5(p, ["b"])),
    "hdf5 attributes": Format(lambda p: write.hdf5(p, COLUMNS, {"k": 1}), read.hdf5_attributes),
    "parquet": Format(
        lambda p: write.parquet(p, COLUMNS), read.parquet, lambda p: read.parquet(p, ["b"])
    ),
    "safetensors": Format(lambda p: write.safetensors(p, COLUMNS), read.safetensors),
    "fits table": Format(
        lambda p: write.fits_table(p, COLUMNS),
        read.fits_table,
        lambda p: read.fits_table(p, ["b"]),
    ),
    "fits image": Format(lambda p: write.fits_image(p, IMAGE), read.fits_image),
    "fits header": Format(lambda p: write.fits_image(p, IMAGE), read.fits_header),
    "fits extension": Format(
        lambda p: write.fits_image(p, IMAGE), lambda p: read.fits_extension(p, "N4", 0)
    ),
}
EVERY = pytest.mark.parametrize("name", FORMATS)
# Any start of these is a file of the same kind.
OPEN_ENDED = {"text", "numbers"}
# Their faults are seen when pixels are read.
HEADERS = {"fits header"}


@pytest.fixture
def path(name: str, tmp_path: Path) -> Path:
    FORMATS[name].write(tmp_path / "file")
    return tmp_path / "file"


def same(found: Any, wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype.kind == values.dtype.kind
        assert values.dtype.kind == "U" or found[name].dtype == values.dtype
        assert found[name].dtype.isnative
        np.testing.assert_array_equal(found[name], values)


@EVERY
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}/no(, record N4)?: does not exist; expe"):
        FORMATS[name].read(tmp_path / "no")


@EVERY
def test_a_folder_in_place_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: it is a folder; expected"):
        FORMATS[name].read(tmp_path)


@EVERY
def test_an_empty_file_is_named(name: str, path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read: it is empty; expected"):
        FORMATS[name].read(path)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - OPEN_ENDED - HEADERS))
def test_a_truncated_file_is_one_line(name: str, path: Path) -> None:
    size = 70 if name == "csv" else path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"cannot be read: |has another number of") as caught:
        FORMATS[name].read(path)
    assert "\n" not in str(caught.value)


@EVERY
def test_bytes_of_another_format_are_one_line(name: str, path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00 not of this kind\n\xff" * 100)
    with pytest.raises(InputError, match="cannot be read: ") as caught:
        FORMATS[name].read(path)
    assert "\n" not in str(caught.value)


@EVERY
def test_a_problem_of_the_machine_is_no_fault_of_the_file(name, path, monkeypatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(read, "open", fails, raising=False)
    with pytest.raises(EnvironmentProblem, match=rf"^{path}: Permission denied$"):
        FORMATS[name].read(path)


def test_a_form_gives_its_fields_and_ignores_further_ones(tmp_path: Path) -> None:
    write.json(tmp_path / "a", {"a": [1], "pair": [2, 3], "names": {"x": None}, "more": 1})
    found = read.form(tmp_path / "a", AForm)
    assert (found.a, found.pair, found.names) == ([1], (2, 3.0), {"x": None})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "field a: field required; expected a list"),
        ({"a": 1}, "field a: input should be a valid array, got 1; expected a list"),
        ({"a": [1, True]}, "field a.1: input should be a valid integer, got True; expected a list"),
        ({"a": [1.0]}, "field a.0: input should be a valid integer, got 1.0; expected a list"),
        ({"a": ["1"]}, "field a.0: input should be a valid integer, got '1'; expected a list"),
        ({"a": [], "pair": [1]}, "field pair.1: field required; expected a list"),
        ({"a": [], "names": {"z": "n"}}, "field names.z.[key]: input should be 'x' or 'y', got"),
        ({"a": [], "names": {"x": 1}}, "field names.x: input should be a valid string, got 1;"),
    ],
)
def test_the_first_wrong_value_of_a_form_is_named(tmp_path: Path, content: Any, problem: str):
    write.json(tmp_path / "a.json", content)
    with pytest.raises(InputError) as caught:
        read.form(tmp_path / "a.json", AForm, expected="a list")
    assert str(caught.value).startswith(f"{tmp_path}/a.json, {problem}")


def test_the_number_of_a_machine_problem_is_found_in_the_text_of_hdf5(monkeypatch, tmp_path):
    import h5py

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("Unable to open file (file read failed: errno = 5, error message = ...)")

    write.hdf5(tmp_path / "x.hdf5", COLUMNS)
    monkeypatch.setattr(h5py, "File", fails)
    with pytest.raises(EnvironmentProblem, match=r"x\.hdf5: Input/output error"):
        read.hdf5(tmp_path / "x.hdf5")


@pytest.mark.parametrize("name", sorted(name for name in FORMATS if FORMATS[name].lacking))
def test_a_name_that_is_missing_comes_with_those_there(name: str, path: Path) -> None:
    lacking = FORMATS[name].lacking
    assert lacking is not None
    with pytest.raises(InputError, match=r"field b: has no such \w+; it has (a|ra, |mag, )"):
        lacking(path)


def test_only_twenty_of_many_names_are_listed(tmp_path: Path) -> None:
    write.csv(tmp_path / "t.csv", {f"c{i}": [1] for i in range(25)})
    with pytest.raises(InputError, match=r"c18, c19 and 5 more$"):
        read.csv(tmp_path / "t.csv", ["x"])


@pytest.mark.parametrize("name", ["csv", "npz", "parquet", "fits table"])
def test_columns_come_back(name: str, path: Path) -> None:
    wanted = {k: v.astype("f8") if name == "csv" and k == "mag" else v for k, v in COLUMNS.items()}
    if name == "csv":
        wanted["mag"] = np.array([float(str(v)) for v in COLUMNS["mag"]])
    same(FORMATS[name].read(path), wanted)


def test_safetensors_and_hdf5_come_back(tmp_path: Path) -> None:
    write.safetensors(tmp_path / "a", COLUMNS, {"k": [1, "x"]})
    arrays, about = read.safetensors(tmp_path / "a")
    assert about == {"k": [1, "x"]}
    write.hdf5(tmp_path / "b", COLUMNS, {"k": 1})
    assert read.hdf5_attributes(tmp_path / "b") == {"k": 1}
    for found in (arrays, read.hdf5(tmp_path / "b")):
        same(found, {k: COLUMNS[k] for k in sorted(COLUMNS)})
    assert list(read.hdf5(tmp_path / "b", ["ra"], optional=["mag", "x"])) == ["ra", "mag"]


def test_text_in_tables_comes_back_without_blanks(tmp_path: Path) -> None:
    with fitsio.FITS(str(tmp_path / "t.fits"), "rw") as file:
        file.write(np.array([(b"a ", 1), (b" bc", 2)], [("NAME", "S4"), ("N", "i2")]))
    found = read.fits_table(tmp_path / "t.fits", ["n", "name"], optional=["more"])
    same(found, {"n": np.array([1, 2], "i2"), "name": np.array(["a", "bc"])})
    write.parquet(tmp_path / "t.pq", {"name": np.array(["a", "bc"])})
    same(read.parquet(tmp_path / "t.pq"), {"name": np.array(["a", "bc"])})
    write.csv(tmp_path / "t.csv", {"name": ["a", "b,c"], "n": [1, 2], "x": ["1", "2.5"]})
    found = read.csv(tmp_path / "t.csv", ["name", "n", "x"])
    same(found, {"name": np.array(["a", "b,c"]), "n": np.array([1, 2]), "x": np.array([1, 2.5])})


def test_tables_are_read_as_astropy_reads_them(tmp_path: Path) -> None:
    """Two libraries, one result: types, unsigned integers, vectors, header cards."""
    columns = [
        fits.Column("A", "K", array=[1, -(2**60)]),
        fits.Column("B", "3E", array=np.arange(6.0).reshape(2, 3)),
        fits.Column("C", "6D", dim="(3,2)", array=np.arange(12.0).reshape(2, 2, 3)),
        fits.Column("D", "L", array=[True, False]),
        fits.Column("E", "I", bzero=2**15, array=np.array([0, 65535], "u2")),
        fits.Column("G", "5A", array=["ab", "c d"]),
        fits.Column("H", "B", array=[0, 255]),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header.update({"PSF_SAMP": 0.123456789012345, "NAME": "it''s", "N": 3, "YES": True})
    primary = fits.PrimaryHDU()
    primary.header["NAME"], primary.header["CAMERA"] = "other", "decam"
    fits.HDUList([primary, table]).writeto(tmp_path / "t.fits")
    found, header = read.fits_table_and_header(tmp_path / "t.fits")
    with fits.open(tmp_path / "t.fits") as file:
        wanted = {c.name: np.asarray(file[1].data[c.name]) for c in columns}
        same(found, {k: v.astype(v.dtype.newbyteorder("=")) for k, v in wanted.items()})
        cards = {**file[0].header, **file[1].header}
    assert header == {name: cards[name] for name in header}
    assert {"PSF_SAMP", "NAME", "N", "YES", "CAMERA", "NAXIS2"} <= set(header)


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    for line in ("3", "3,4,5"):
        (tmp_path / "t.csv").write_text(f"a,b\n1,2\n{line}\n")
        with pytest.raises(InputError, match="record 2: has another number of cells"):
            read.csv(tmp_path / "t.csv", ["a"])


def test_arrays_have_the_machines_byte_order(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(5, dtype=">f4"))
    for mapped in (False, True):
        found = read.npy(tmp_path / "x.npy", mapped=mapped)
        assert found.dtype == np.dtype("f4")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, np.arange(5))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"shape": (None, 3)}, r"has shape \[1000, 2\]; expected \[n, 3\]"),
        ({"shape": (N,)}, r"has shape \[1000, 2\]; expected \[1000\]"),
        ({"dtypes": ["float32", "float16"]}, "holds float64; expected float32 or float16"),
        ({"dtypes": "iu"}, "holds float64; expected numbers of kind i or numbers of kind u"),
    ],
)
def test_shape_and_type_are_checked_where_they_are_given(wanted, message, tmp_path: Path) -> None:
    write.npy(tmp_path / "x.npy", PAIRS)
    with pytest.raises(InputError, match=rf"x\.npy: {message}"):
        read.npy(tmp_path / "x.npy", **wanted)
    read.npy(tmp_path / "x.npy", shape=(None, 2), dtypes="f", mapped=True)


def test_objects_are_not_unpickled_as_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"x\.npy: cannot be read: Object arrays"):
        read.npy(tmp_path / "x.npy")
    assert read.npy_object(tmp_path / "x.npy").tolist() == [{}]


@pytest.mark.parametrize("compress", [None, "GZIP_2"])
def test_images_come_back_with_their_header(compress: str | None, tmp_path: Path) -> None:
    path = tmp_path / "i.fits"
    write.fits_image(path, IMAGE, header={"BUNIT": "nanomaggy "}, compress=compress)
    pixels, header = read.fits_image(path, shape=(20, 30))
    np.testing.assert_array_equal(pixels, IMAGE)
    assert pixels.dtype == np.dtype("f4")
    assert header == read.fits_header(path)
    assert (header["NAXIS1"], header["NAXIS2"], header["BUNIT"]) == (30, 20, "nanomaggy")
    with pytest.raises(InputError, match="is 30 x 20 pixels; expected 30 x 30"):
        read.fits_image(path, shape=(30, 30))
    data, own, primary = read.fits_extension(path, "N4", 1 if compress else 0)
    np.testing.assert_array_equal(data, IMAGE)
    assert own["BUNIT"].strip() == "nanomaggy"
    assert primary["SIMPLE"]


def test_files_without_table_or_image_are_named(tmp_path: Path) -> None:
    write.fits_image(tmp_path / "i.fits", IMAGE)
    with pytest.raises(InputError, match="holds no table"):
        read.fits_table(tmp_path / "i.fits")
    write.fits_table(tmp_path / "t.fits", COLUMNS)
    for reader in (read.fits_image, read.fits_header):
        with pytest.raises(InputError, match="holds no image"):
            reader(tmp_path / "t.fits")
    write.fits_image(tmp_path / "cube.fits", np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match="has 3 axes; expected 2"):
        read.fits_image(tmp_path / "cube.fits")
    with pytest.raises(InputError, match=r"record N4: holds an array of shape \(2, 3, 4\)"):
        read.fits_extension(tmp_path / "cube.fits", "N4", 0)
