"""Readers of the product formats, and of the formats of input files.

Every reader opens its file through `reading`, so that all faults look alike: a file that is
missing, empty, truncated, corrupt or of another format is an `InputError` with one line; a fault of
the machine (permission, disk, number of open files) is an `EnvironmentProblem`. A missing column,
field or dataset is an `InputError` that lists what the file has. Arrays have the machine's byte
order. The library of a format is imported when a file of that format is read.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from skyproof.core.errors import InputError, SkyproofError, from_os_error, is_machine_problem
from skyproof.core.formats.contents import LAYOUT_CARDS

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from pydantic import ValidationError

T = TypeVar("T")
Columns = dict[str, np.ndarray]  # of a table, by name; each [n, ...]

_MOST_LISTED = 20  # names in a message


@contextmanager
def reading(path: str | Path, expected: str, record: object = None) -> Iterator[None]:
    """Turn whatever goes wrong while a file is opened and read into the errors named above."""
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            empty = not stream.read(1)
        if empty:
            raise ValueError("it is empty")
        yield
    except (SkyproofError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(path, "does not exist", record=record, expected=expected) from None
    except Exception as error:
        machine = _machine_problem(error, path)
        if machine is not None:
            raise from_os_error(machine) from None
        raise InputError(
            path, f"cannot be read: {_reason(error)}", record=record, expected=expected
        ) from None


def _machine_problem(error: Exception, path: Path) -> OSError | None:
    """Return the machine's problem behind a library's error, or None where it is the file's."""
    if not isinstance(error, OSError):
        return None
    hidden = re.search(r"errno = (\d+)", str(error))  # HDF5 has the number in its text only
    if error.errno is None and hidden:
        error = OSError(int(hidden[1]), os.strerror(int(hidden[1])))
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error if is_machine_problem(error) else None


def _reason(error: Exception) -> str:
    """Return one line: of cfitsio's errors the last, of others the first that says anything."""
    if isinstance(error, OSError) and error.errno == errno.EISDIR:
        return "it is a folder"
    of_cfitsio = re.findall(r"FITSIO status = \d+: (.+)", str(error))
    lines = of_cfitsio[-1:] or [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[0].split()) if lines else type(error).__name__


def check_names(
    path: str | Path, found: Iterable[str], needed: Iterable[str], *, what: str = "column"
) -> None:
    """Raise InputError for the first of the `needed` names that is not among those `found`."""
    known = list(found)
    for name in needed:
        if name not in known:
            shown = ", ".join(known[:_MOST_LISTED]) or "none"
            more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
            raise InputError(path, f"has no such {what}; it has {shown}{more}", field=name)


def check_array(
    path: str | Path,
    array: np.ndarray,
    *,
    field: str | None = None,
    shape: Sequence[int | None] | None = None,
    dtypes: Sequence[str] = (),
    meaning: str = "",
) -> None:
    """Raise InputError unless an array has this shape (None: any length) and one of these types.

    `dtypes` are names ('float32') or kinds of numpy types ('f' for any float, 'i', 'u'). `meaning`
    explains the expected shape in the message.
    """
    if shape is not None and not (
        array.ndim == len(shape)
        and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        raise InputError(
            path,
            f"has shape {list(array.shape)}",
            field=field,
            expected=f"[{wanted}]{meaning and ', '}{meaning}",
        )
    if dtypes and not {array.dtype.name, array.dtype.kind} & set(dtypes):
        names = [np.dtype(d).name if len(d) > 1 else f"numbers of kind {d}" for d in dtypes]
        raise InputError(
            path, f"holds {array.dtype.name}", field=field, expected=" or ".join(names)
        )


def _native(array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        return array
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def text(path: str | Path, expected: str = "text in UTF-8") -> str:
    """Return the content of a text file."""
    with reading(path, expected):
        return Path(path).read_text(encoding="utf-8")


def json(path: str | Path, *, expected: str = "JSON") -> Any:
    """Return the value of a JSON file."""
    from json import loads

    with reading(path, expected):
        return loads(Path(path).read_text(encoding="utf-8"))


def form(path: str | Path, kind: type[T], *, expected: str = "JSON") -> T:
    """Return the content of a JSON file as `kind`, a dataclass of the fields that are needed.

    Types are strict: true and 1.0 are no integers. Further keys are ignored. InputError names the
    field of the first wrong value.
    """
    return _validated(path, kind, expected)[0]


def checked_json(path: str | Path, kind: type, *, expected: str = "JSON") -> dict[str, Any]:
    """Return the whole content of a JSON file that has the fields of `kind` (see `form`)."""
    from json import loads

    content: dict[str, Any] = loads(_validated(path, kind, expected)[1])
    return content


def _validated(path: str | Path, kind: type[T], expected: str) -> tuple[T, bytes]:
    """Return the content of a JSON file as `kind` and as bytes, read once (InputError)."""
    import pydantic

    with reading(path, expected):
        content = Path(path).read_bytes()
    try:
        return pydantic.TypeAdapter(kind).validate_json(content, strict=True), content
    except pydantic.ValidationError as error:
        field, problem = first_problem(error)
        text = problem if field else f"cannot be read: {problem}"
        raise InputError(path, text, field=field or None, expected=expected) from None


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the field ('' for the whole) and the text of the first problem with a form."""
    from reprlib import repr

    problem = error.errors(include_url=False)[0]
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    shown = problem["type"] not in ("missing", "json_invalid")
    given = f", got {repr(problem['input'])}" if shown else ""
    return ".".join(map(str, problem["loc"])), f"{message}{given}"


def csv_rows(path: str | Path, columns: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a table with a header line, one at a time; `columns` must be among them."""
    from csv import DictReader

    with reading(path, "a table (.csv)"), open(path, encoding="utf-8", newline="") as stream:
        reader = DictReader(stream, strict=True)
        names = reader.fieldnames or ()
        check_names(path, names, columns)
        for number, row in enumerate(reader, start=1):
            if len(row) != len(names) or None in row.values():
                raise InputError(
                    path, "has another number of cells than the header", record=number,
                    expected=f"{len(names)}",
                )  # fmt: skip
            yield row


def csv(path: str | Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Return columns [n] of a table with a header line: int64, else float64, else str."""
    rows = list(csv_rows(path, columns))
    return {name: _parsed([row[name] for row in rows]) for name in columns}


def _parsed(cells: list[str]) -> np.ndarray:
    for kind in (int, float):
        try:
            return np.array([kind(cell) for cell in cells], np.int64 if kind is int else np.float64)
        except (ValueError, OverflowError):
            continue
    return np.array(cells, np.str_)


def numbers(path: str | Path, expected: str = "numbers, a row a line") -> np.ndarray:
    """Return the numbers of a text file, float64 [lines, numbers a line]; `#` starts a comment."""
    with reading(path, expected):
        found: np.ndarray = np.loadtxt(path, ndmin=2)
        return found


def npy(
    path: str | Path,
    *,
    shape: Sequence[int | None] | None = None,
    dtypes: Sequence[str] = (),
    meaning: str = "",
    mapped: bool = False,
) -> np.ndarray:
    """Return the array of a .npy file; nothing is unpickled.

    `mapped`: mapped into memory, read-only, where its byte order is the machine's. The shape and
    the type are checked by `check_array`.
    """
    with reading(path, "a whole .npy file"):
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        array = array if array.dtype.isnative else _native(array)
    check_array(path, array, shape=shape, dtypes=dtypes, meaning=meaning)
    return array


def npy_object(path: str | Path) -> Any:
    """Return the array of a .npy file, or the object that it wraps (only data is unpickled)."""
    from skyproof.core.formats import pickles

    with reading(path, "an array saved by numpy.save"):
        return pickles.read_npy(path)


def npz(path: str | Path) -> dict[str, Any]:
    """Return the arrays and wrapped objects of a .npz file (only data is unpickled)."""
    from skyproof.core.formats import pickles

    with reading(path, "arrays saved by numpy.savez"):
        return pickles.read_npz(path)


def hdf5(
    path: str | Path,
    names: Sequence[str] | None = None,
    *,
    optional: Sequence[str] = (),
    expected: str = "a whole HDF5 file",
) -> dict[str, np.ndarray]:
    """Return datasets of an HDF5 file by name (None: all at its top level).

    Absent `optional` ones are left out.
    """
    import h5py

    with reading(path, expected), h5py.File(path, "r") as file:
        there = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
        wanted = [*(there if names is None else names)]
        wanted += [name for name in optional if isinstance(file.get(name), h5py.Dataset)]
        found = {}
        for name in wanted:
            dataset = file.get(name)
            if not isinstance(dataset, h5py.Dataset):
                check_names(path, there, [name], what="dataset")
            found[name] = _native(np.asarray(dataset[()]))
        return found


def hdf5_attributes(path: str | Path) -> dict[str, Any]:
    """Return the attributes of an HDF5 file's top level."""
    import h5py

    with reading(path, "a whole HDF5 file"), h5py.File(path, "r") as file:
        return dict(file.attrs)


def parquet(path: str | Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return columns [n] of a Parquet file (None: all); text as str, lists as float64 [n, k]."""
    import pyarrow.parquet as pq

    with reading(path, "a Parquet table"):
        names = pq.read_schema(path).names
        check_names(path, names, columns or ())
        table = pq.read_table(path, columns=list(names if columns is None else columns))
        return {name: _from_arrow(table.column(name)) for name in columns or names}


def _from_arrow(column: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_nested(column.type):
        return np.array(column.to_pylist(), np.float64)
    values: np.ndarray = column.to_numpy()
    if values.dtype != object:
        return values
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], np.str_)


def safetensors(
    path: str | Path, *, expected: str = "a whole .safetensors file"
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a file by name, and the metadata that `write.safetensors` stored."""
    from json import loads

    from safetensors import safe_open

    with reading(path, expected), safe_open(str(path), framework="np") as file:
        metadata = file.metadata() or {}
        check_names(path, metadata, ["json"], what="metadata")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, dict(loads(metadata["json"]))


def fits_table(
    path: str | Path, columns: Sequence[str] | None = None, *, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Return columns [n, ...] of the first table of a FITS file, text as str without blanks around.

    `columns` are found whatever the case of the file's names (None: all, under the file's names);
    absent `optional` ones are left out.
    """
    return fits_table_and_header(path, columns, optional=optional)[0]


def fits_table_and_header(
    path: str | Path, columns: Sequence[str] | None = None, *, optional: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what `fits_table` returns, and the cards of the table's and the primary header.

    Of a card in both, the value is that of the table's header.
    """
    import fitsio

    with reading(path, "a whole FITS file"), fitsio.FITS(str(path)) as file:
        table = next((hdu for hdu in file if hdu.get_exttype() != "IMAGE_HDU"), None)
        if table is None:
            raise InputError(path, "holds no table", expected="a FITS table")
        there = {name.lower(): name for name in table.get_colnames()}
        if columns is None:
            wanted = {name: name for name in there.values()}
        else:
            check_names(path, there, [name for name in columns if name.lower() not in there])
            present = [*columns, *(name for name in optional if name.lower() in there)]
            wanted = {name: there[name.lower()] for name in present}
        header = {**_cards(file[0].read_header()), **_cards(table.read_header())}
        if not wanted:
            return {}, header
        rows = table.read(columns=list(wanted.values()))
        return {name: _column(rows[own]) for name, own in wanted.items()}, header


def _column(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "SU":
        return np.char.strip(values.astype(str))
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _cards(header: Any) -> dict[str, Any]:
    """Return the cards of a header of fitsio by name, text without blanks at its end."""
    return {
        card["name"]: card["value"].rstrip() if isinstance(card["value"], str) else card["value"]
        for card in header.records()
        if card["name"] not in (None, "", "COMMENT", "HISTORY")
    }


def fits_image(
    path: str | Path, *, shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return pixels [ny, nx] and header of the first image of a FITS file, compressed or not.

    NAXIS1 and NAXIS2 of the header are those of the image. InputError where the image is not
    two-dimensional, or not of `shape`.
    """
    with _first_image(path) as hdu:
        header = _image_header(path, hdu)
        pixels = _native(hdu.read())
    if shape is not None and pixels.shape != tuple(shape):
        size, wanted = (" x ".join(map(str, reversed(s))) for s in (pixels.shape, shape))
        raise InputError(path, f"is {size} pixels", expected=wanted)
    return pixels, header


def fits_header(path: str | Path) -> dict[str, Any]:
    """Return the header that `fits_image` returns, without reading the pixels."""
    with _first_image(path) as hdu:
        return _image_header(path, hdu)


@contextmanager
def _first_image(path: str | Path) -> Iterator[Any]:
    import fitsio

    with reading(path, "a whole FITS file"), fitsio.FITS(str(path)) as file:
        images = (hdu for hdu in file if hdu.get_exttype() == "IMAGE_HDU" and hdu.has_data())
        hdu = next(images, None)
        if hdu is None:
            raise InputError(path, "holds no image", expected="a FITS image, compressed or not")
        yield hdu


def _image_header(path: str | Path, hdu: Any) -> dict[str, Any]:
    dims = hdu.get_dims()
    if len(dims) != 2:
        raise InputError(path, f"has {len(dims)} axes", field="NAXIS", expected="2")
    cards = _cards(hdu.read_header()).items()
    own = {name: value for name, value in cards if not name.startswith(LAYOUT_CARDS)}
    return {**own, "NAXIS1": int(dims[1]), "NAXIS2": int(dims[0])}


def fits_extension(
    path: str | Path, name: str, number: int, *, pixels: bool = True
) -> tuple[np.ndarray, Header, Header]:
    """Return the image [ny, nx] of an extension, its header, and the primary header.

    The extension is that of this name, else that of this number, which also names the record in
    errors. The headers are astropy's, as its world coordinates need them. Without `pixels` the
    array is empty, and the extension need not be an image.
    """
    import warnings

    from astropy.io import fits

    with (
        reading(path, "a whole FITS file", record=name),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False) as file:
            named = (hdu for hdu in file if hdu.name.upper() == name.upper() != "PRIMARY")
            hdu = next(named, None) or file[number]
            data = hdu.data if pixels else np.empty((0, 0))
            headers = hdu.header, file[0].header
    if pixels and (data is None or data.ndim != 2 or data.size == 0):
        shape = "no array" if data is None else f"an array of shape {data.shape}"
        raise InputError(path, f"holds {shape}", record=name, expected="a 2-d image")
    return data, *headers
