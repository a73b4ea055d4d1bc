"""Stage obiwan.infer: scores of the test part and of folders, on any number of ranks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fitsio
import numpy as np
import pandas as pd
import pytest

from skyproof.core.blocks import read_index
from skyproof.core.errors import InputError, UsageError
from skyproof.core.seeds import stream
from skyproof.core.stage import Context
from skyproof.learn import checkpoint, device
from skyproof.obiwan import infer
from skyproof.obiwan.dataset import test_files as files_of_test_part
from skyproof.obiwan.network import MODEL, StampClassifier, initialise
from skyproof.obiwan.options import Infer
from tests.conftest import one_line, skyproof
from tests.unit.obiwan.build.train import write_split


def write_model(path: Path, bands: str = "g", seed: int = 1) -> Path:
    """Write a network with random weights, sufficient for scoring."""
    network = StampClassifier(len(bands), "code")
    initialise(network, partial(stream, seed))
    about = {"format": MODEL, "bands": bands, "pool": "code"}
    checkpoint.write(path, network.state_dict(), about)
    return path


@pytest.fixture(scope="module")
def block_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"), n_bricks=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


def scores(
    model: Path,
    out: Path,
    split: list[Path] | None = None,
    stamps: Path | None = None,
    batch: int = 64,
) -> pd.DataFrame:
    infer.run(
        SimpleNamespace(model=model, split=split or [], stamps=stamps),
        SimpleNamespace(scores=out),
        Infer(batch=batch),
        Context("obiwan.infer"),
    )
    return pd.read_parquet(out)


def test_scores_of_the_test_part_have_the_columns_of_its_catalogue(
    model: Path, block_index: Path, tmp_path: Path
):
    table = scores(model, tmp_path / "s.parquet", [block_index])
    files = files_of_test_part(read_index(block_index))
    catalogue = np.concatenate([fitsio.read(one.catalog) for one in files])
    assert len(files) == 6  # 2 bricks of 24 stamps, 8 rows a file
    assert table["id"].tolist() == catalogue["id"].tolist()
    assert table["brick"].tolist() == catalogue["brick"].tolist()
    assert table["label"].tolist() == catalogue["label"].tolist()
    assert {"rs", "ra", "dec", "x", "y", "type", "mag_g", "psfsize_g"} <= set(table)
    assert table["score"].dtype == np.float32
    assert table["score"].between(0, 1).all()
    assert table["score"].nunique() > 10


def test_scores_do_not_depend_on_how_rows_are_grouped(model: Path, tmp_path: Path):
    device.configure("cpu", 1, "portable")
    network, _ = infer.load_model(model)
    network.eval()
    x = np.random.default_rng(1).normal(size=(21, 64, 64, 2)).astype(np.float32)
    where = device.configure("cpu", 1, "portable")
    whole = infer.score(network, x, 8, where)
    parts = [infer.score(network, x[a:b], 8, where) for a, b in ((0, 3), (3, 14), (14, 21))]
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.mpi
def test_two_ranks_write_the_bytes_of_one(model: Path, block_index: Path, tmp_path: Path):
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.parquet"
        result = skyproof(
            "obiwan.infer", "--in", f"model={model}", f"split={block_index}",
            "--out", f"scores={out}", ranks=ranks,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_a_folder_of_arrays_is_scored_with_file_and_row(
    model: Path, block_index: Path, tmp_path: Path
):
    files = files_of_test_part(read_index(block_index))
    folder = tmp_path / "mine"
    (folder / "deeper").mkdir(parents=True)
    np.save(folder / "b.npy", np.load(files[0].x))
    np.save(folder / "deeper/a.npy", np.load(files[1].x)[:3].astype(np.float16))
    table = scores(model, tmp_path / "s.parquet", stamps=folder)
    assert table["file"].tolist() == ["b.npy"] * 8 + ["deeper/a.npy"] * 3
    assert table["row"].tolist() == [*range(8), 0, 1, 2]
    assert list(table) == ["score", "file", "row"]
    known = scores(model, tmp_path / "t.parquet", [block_index])
    assert table["score"][:8].tolist() == known["score"][:8].tolist()


def test_a_folder_of_stamp_files_is_scored_with_its_tables(
    model: Path, block_index: Path, tmp_path: Path
):
    table = scores(model, tmp_path / "s.parquet", stamps=block_index.parents[1] / "cutouts")
    assert len(table) == 10 * 24
    known = scores(model, tmp_path / "t.parquet", [block_index]).set_index(["brick", "label", "id"])
    found = table.set_index(["brick", "label", "id"])
    assert (found.loc[known.index, "score"] == known["score"]).all()


@pytest.mark.parametrize("how", ["split", "npy", "hdf5"])
def test_stamps_of_other_bands_are_errors_with_both_bands(
    block_index: Path, tmp_path: Path, how: str
):
    model = write_model(tmp_path / "model.safetensors", "grz")
    given: dict[str, object] = {"split": [block_index]}
    if how == "npy":
        (tmp_path / "folder").mkdir()
        np.save(tmp_path / "folder/a.npy", np.zeros((2, 64, 64, 2), np.float32))
        given = {"stamps": tmp_path / "folder"}
    elif how == "hdf5":
        given = {"stamps": block_index.parents[1] / "cutouts"}
    with pytest.raises(InputError, match=r"(64, 2\]|1 bands).*grz"):
        scores(model, tmp_path / "s.parquet", **given)


def test_a_file_that_is_not_a_model_is_an_error(block_index: Path, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a model")
    out = tmp_path / "s.parquet"
    result = skyproof(
        "obiwan.infer", "--in", f"model={path}", f"split={block_index}", "--out", f"scores={out}"
    )
    assert result.returncode == 3
    assert "model.safetensors: cannot be read" in one_line(result)
    assert not out.exists()


def test_either_a_split_or_a_folder_must_be_given(model: Path, block_index: Path, tmp_path: Path):
    for given in ({}, {"split": [block_index], "stamps": tmp_path}):
        with pytest.raises(UsageError, match="give either"):
            scores(model, tmp_path / "s.parquet", **given)


def test_a_folder_without_stamps_is_an_error(model: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no stamps"):
        scores(model, tmp_path / "s.parquet", stamps=tmp_path / "empty")
