"""Arrays of Python objects are read without executing code."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.core.formats.pickles import read_npy, read_npz

TABLE = np.array([(1.5, 7), (2.5, 9)], dtype=[("label", "f8"), ("hpix", "i8")])
LEGACY = {"train": {"fold0": TABLE}, "test": {"fold0": TABLE[:1]}, "scalar": np.float64(0.25)}


class Shell:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_dictionary_of_arrays_reads_back(tmp_path, protocol):
    wrapped = np.empty((), object)
    wrapped[()] = LEGACY
    with open(tmp_path / "x.npy", "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(wrapped, stream, protocol=protocol)
    found = read_npy(tmp_path / "x.npy")
    np.testing.assert_array_equal(found["train"]["fold0"], TABLE)
    assert found["test"]["fold0"].dtype == TABLE.dtype
    assert found["scalar"] == 0.25


def test_numpys_own_files(tmp_path):
    plain = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "x.npz", plain=plain, losses=LEGACY, rows=[{"a": 1.0}, {"a": 2.0}])
    found = read_npz(tmp_path / "x.npz")
    np.testing.assert_array_equal(found["plain"], plain)
    assert list(found["losses"]) == list(LEGACY)
    assert [row["a"] for row in found["rows"]] == [1.0, 2.0]
    np.save(tmp_path / "x.npy", TABLE)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), TABLE)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", {"train": Shell()}, allow_pickle=True)
    np.savez("x.npz", losses=np.array({"train": Shell()}))
    with pytest.raises(InputError, match=r"x\.npy: contains more than data \(names posix\.mkdir\)"):
        read_npy("x.npy")
    with pytest.raises(InputError, match=r"x\.npz, field losses: contains more than data"):
        read_npz("x.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"no numpy", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_not_an_array_is_an_input_error(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match="numpy's format"):
        read_npy(tmp_path / "x.npy")


def test_a_truncated_file_is_an_error(tmp_path):
    np.save(tmp_path / "x.npy", LEGACY, allow_pickle=True)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        read_npy(tmp_path / "x.npy")
    (tmp_path / "x.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_npz(tmp_path / "x.npz")
