"""Stage obiwan.infer: the probability that a source was injected, for the test part or any stamps.

`scores.parquet` has one row per stamp: `score` (float32, 0 to 1) and the columns of the catalogue
(test part), or of the table of stamps (.hdf5), or `file` and `row` (.npy files, [n, 64, 64, 2 x
bands] with channels g_img, g_ivar, ...). Rows are in the order of the file names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from skyproof.core import blocks
from skyproof.core.comm import share
from skyproof.core.errors import InputError, UsageError
from skyproof.core.formats import read, write
from skyproof.learn import checkpoint, device
from skyproof.obiwan.dataset import channels, check_finite, open_pixels, test_files
from skyproof.obiwan.network import MODEL, StampClassifier
from skyproof.obiwan.stamps.reader import read_stamps
from skyproof.obiwan.survey import stamp_dtype

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Infer


class StampFile(NamedTuple):
    """Path of a file of stamps, and of the catalogue with the same rows if there is one."""

    path: Path
    catalog: Path | None = None


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Infer, context: Context
) -> None:
    """Score all files, divided among the ranks; rank 0 writes the table."""
    if bool(inputs.split) == bool(inputs.stamps):
        raise UsageError("give either split=INDEX..., or stamps=FOLDER")
    where = device.prepare(context, options)
    network, bands = load_model(inputs.model)
    network.to(where).eval()
    sources = list(find_stamps(inputs.stamps) if inputs.stamps else find_test_part(inputs.split))
    if not sources:
        raise InputError(inputs.stamps or inputs.split[0], "has no stamps to score")
    mine = share(list(enumerate(sources)), context.comm)
    progress = context.progress(len(mine), "scoring")
    scored = []
    for number, source in mine:
        x, columns = read_stamp_file(source, bands, inputs.stamps)
        columns["score"] = score(network, x, options.batch, where)
        scored.append((number, columns))
        progress.advance()
    progress.close()
    parts = context.comm.gather(scored)
    if parts is not None:
        ordered = sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])
        write.parquet(outputs.scores, joined([columns for _, columns in ordered]))


def load_model(path: Path) -> tuple[StampClassifier, str]:
    """Return the network of a model file and its bands. Raise InputError if it is not one."""
    tensors, about = checkpoint.read(path, MODEL)
    network = StampClassifier(len(about["bands"]), about["pool"])
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(path, f"does not fit the network: {reason}") from None
    return network, about["bands"]


def find_test_part(paths: list[Path]) -> Iterator[StampFile]:
    """Yield the test files of a split, by brick and number."""
    for files in test_files(blocks.read_indexes(paths)):
        yield StampFile(files.x, files.catalog)


def find_stamps(folder: Path) -> Iterator[StampFile]:
    """Yield the .npy and .hdf5 files below a folder, by name, except labels (y*.npy)."""
    for path in sorted(folder.rglob("*")):
        labels = path.name.startswith(("ytrain_", "ytest_"))
        if path.is_file() and path.suffix in (".npy", ".hdf5") and not labels:
            yield StampFile(path)


def read_stamp_file(
    source: StampFile, bands: str, folder: Path | None
) -> tuple[np.ndarray, read.Columns]:
    """Return the pixels [n, 64, 64, 2 x bands] of a file and the columns that identify its rows."""
    if source.path.suffix == ".hdf5":
        image, ivar, table = read_stamps(source.path)
        if image.shape[-1] != len(bands):
            raise InputError(
                source.path, f"has {image.shape[-1]} bands", expected=f"{bands}, those of the model"
            )
        x = np.stack([image, ivar], axis=-1).reshape(*image.shape[:3], len(channels(bands)))
        return x, columns_of(table)
    x = open_pixels(source.path, bands)
    check_finite(x, source.path, bands)
    if source.catalog is not None:
        catalog = read.fits_table(source.catalog, stamp_dtype(bands).names or ())
        if len(catalog["id"]) != len(x):
            raise InputError(source.catalog, f"has {len(catalog['id'])} rows", expected=str(len(x)))
        return x, columns_of(catalog)
    name = source.path.relative_to(folder or source.path.parent).as_posix()
    return x, {"file": np.full(len(x), name), "row": np.arange(len(x))}


def columns_of(table: np.ndarray | read.Columns) -> read.Columns:
    """Return the columns of a table, with bytes decoded to text."""
    names = table.dtype.names if isinstance(table, np.ndarray) else list(table)
    columns = {name: np.asarray(table[name]) for name in names or ()}
    return {
        name: np.char.decode(column) if column.dtype.kind == "S" else column
        for name, column in columns.items()
    }


@torch.no_grad()
def score(network: StampClassifier, x: np.ndarray, batch: int, where: torch.device) -> np.ndarray:
    """Return the probability of class 1, float32 [n], for rows x [n, ...].

    Every pass has exactly `batch` rows; the last one is padded with zeros. Kernels depend on the
    number of rows, and with a fixed number the score of a row does not depend on the other rows.
    """
    scores = np.empty(len(x), np.float32)
    for start in range(0, len(x), batch):
        rows = x[start : start + batch]
        padded = np.zeros((batch, *x.shape[1:]), x.dtype)
        padded[: len(rows)] = rows
        logits = network(torch.from_numpy(padded).to(where)).float()
        scores[start : start + len(rows)] = logits.softmax(1)[: len(rows), 1].cpu().numpy()
    return scores


def joined(parts: list[read.Columns]) -> read.Columns:
    """Concatenate the columns that all files have, `score` first."""
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    order = ["score", *(name for name in shared if name != "score")]
    return {name: np.concatenate([part[name] for part in parts]) for name in order}
