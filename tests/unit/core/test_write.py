"""Equal content gives equal bytes, for any time, place and process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import fitsio
import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from skyproof.core.formats import pickles, write
from tests.conftest import clean_environment

WRITE_ALL = """
import sys, os
from pathlib import Path
import numpy as np
from skyproof.core.formats import write
folder = Path(sys.argv[1]); os.umask(int(sys.argv[2], 8))
a = np.random.default_rng(1).normal(size=(64, 80)).astype("f4")
write.json(folder / "a.json", {"b": 1.5, "a": sorted({"x", "y", "z"}), "n": np.int64(3)})
write.npy(folder / "a.npy", a.T)
write.npz(folder / "a.npz", {"z": a, "o": np.array([{"k": 1.5}], object)})
write.hdf5(folder / "a.hdf5", {"z": a, "group/y": a[0]}, {"unit": "nanomaggy", "n": 3})
names = np.array([b"a", b"bc", b"", b"d"])
write.fits_table(folder / "t.fits", {"id": np.arange(4), "name": names})
write.fits_image(folder / "i.fits", a, header={"CRPIX1": 1.5})
write.fits_image(folder / "r.fits.fz", a, compress="RICE", quantize=16.0)
write.fits_image(folder / "g.fits.fz", a, compress="GZIP_2")
write.csv(folder / "a.csv", {"x": np.array([0.1, 2]), "s": ["a,b", "c"]})
write.parquet(folder / "a.parquet", {"x": a[0], "s": np.array(["u"] * 80)})
write.safetensors(folder / "a.safetensors", {"w": a, "b": a[0]}, {"k": 1, "j": [1, 2]})
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 2)); axes.plot([0, 1], [1, 0], label="x"); axes.legend()
write.figure(folder / "a.png", figure)
"""


def write_all(folder: Path, umask: str, **environment: str) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-c", WRITE_ALL, str(folder), umask],
        check=True,
        timeout=120,
        env=clean_environment(MPLBACKEND="agg", **environment),
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_do_not_depend_on_time_place_or_process(tmp_path):
    first = write_all(tmp_path / "a", "022", TZ="UTC", PYTHONHASHSEED="1", LC_ALL="C")
    time.sleep(1.1)  # formats with a time stamp have seconds
    second = write_all(tmp_path / "elsewhere/deeper", "077", TZ="Asia/Tokyo", PYTHONHASHSEED="2")
    assert len(first) == 12
    assert [name for name in first if first[name] != second[name]] == []


def test_npz_is_what_numpy_reads_without_headers_that_a_release_of_python_changed(tmp_path):
    """Python 3.11.4 states version 4.5 if the size is not known before writing."""
    arrays = {"a": np.arange(3.0), "o": np.array([{"k": 1.5}], object)}
    write.npz(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=True) as found:
        assert list(found) == ["a", "o"]
        np.testing.assert_array_equal(found["a"], arrays["a"])
        assert found["o"][0] == {"k": 1.5}
    assert (pickles.read_npz(tmp_path / "a.npz")["a"] == arrays["a"]).all()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        headers = [(entry.extract_version, entry.extra) for entry in archive.infolist()]
    assert headers == [(20, b"")] * 2
    local = (tmp_path / "a.npz").read_bytes()
    assert local[4:6] == b"\x14\0"
    assert local[28:30] == b"\0\0"


def test_nothing_of_the_machine_is_inside(tmp_path):
    import socket

    for name, content in write_all(tmp_path / "products", "022").items():
        for secret in (str(tmp_path), socket.gethostname() + ".", time.strftime("%Y-%m-%d")):
            assert secret.encode() not in content, name


@pytest.fixture
def image():
    return np.random.default_rng(2).normal(size=(100, 120)).astype("f4")


def test_values_survive(tmp_path, image):
    write.hdf5(tmp_path / "a.hdf5", {"x": image, "deep/y": image[0]}, {"unit": "deg"})
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert np.array_equal(file["x"], image)
        assert np.array_equal(file["deep/y"], image[0])
        assert file.attrs["unit"] == "deg"
    write.fits_image(tmp_path / "g.fits.fz", image, compress="GZIP_2")
    assert np.array_equal(fitsio.read(tmp_path / "g.fits.fz", ext=1), image)
    write.safetensors(tmp_path / "w.safetensors", {"w": image.T})
    assert np.array_equal(load_file(tmp_path / "w.safetensors")["w"], image.T)
    write.csv(tmp_path / "a.csv", {"x": np.array([0.1, 1 / 3]), "y": np.float32([0.1, 7])})
    assert np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1)[1, 0] == 1 / 3


def test_rows_written_directly_are_read_by_hdf5(tmp_path, image):
    path = tmp_path / "a.hdf5"
    datasets = {"x": (image.shape, image.dtype), "none": ((0, 3), image.dtype)}
    with write.filling_hdf5(path, datasets) as file:
        writer = write.RowWriter(file["x"])
        for rows in (slice(60, 100), slice(0, 30), slice(30, 60)):
            writer.write(rows.start, image[rows])
        write.RowWriter(file["none"]).write(0, image[:0, :3])
        for first, rows, says in (
            (0, image.astype("f8"), "rows are float32"),
            (0, image[:, :5], "rows are float32"),
            (90, image[:11], "has 100 rows"),
        ):
            with pytest.raises(ValueError, match=says):
                writer.write(first, rows)
    with h5py.File(path) as file:
        assert np.array_equal(file["x"], image)


def test_big_endian_input_is_written_little_endian(tmp_path):
    write.npy(tmp_path / "a.npy", np.arange(3, dtype=">f8"))
    assert np.load(tmp_path / "a.npy").dtype == np.dtype("<f8")


def test_json_with_nan_or_unknown_types_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write.json(tmp_path / "a.json", {"x": float("nan")})
    with pytest.raises(TypeError, match="has no JSON form"):
        write.json(tmp_path / "a.json", {"x": object()})
    write.json(tmp_path / "a.json", {"x": np.array([1, 2])})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2]}
