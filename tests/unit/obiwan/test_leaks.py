"""Inputs of a training: planted leaks and invalid arrays are errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest

from skyproof.core.blocks import Item, read_index
from skyproof.core.errors import InputError
from skyproof.core.formats import write
from skyproof.obiwan import dataset
from skyproof.sky.tan import tan_from_info
from tests.unit.obiwan.build.split import apart, made, part_of, read_split
from tests.unit.obiwan.build.stamps import bricks_in_row, write_block


def change_catalog(path: Path, **values: object) -> None:
    """Write values into the first row of a catalogue."""
    table = fitsio.read(path)
    table = table.astype([(n, "S" + str(t)[2:]) if t.kind == "U" else (n, t)
                          for n, (t, *_) in table.dtype.fields.items()])  # fmt: skip
    for name, value in values.items():
        table[name][0] = value
    path.unlink()
    write.fits_table(path, table)


def test_x01_planted_leak_of_sky_is_an_error(tmp_path: Path) -> None:
    """A training stamp moved to 62 pixels from a test stamp of the next brick: two rows shared."""
    items = made(tmp_path, [bricks_in_row(4, n_real=20, n_fake=20)], test_fraction=0.25)
    dataset.check_no_leak(items)
    parts = part_of(tmp_path)
    names = sorted(parts)
    test_item = next(item for item in items if parts[item.name] == "test")
    beside = next(
        item for item in items
        if abs(names.index(item.name) - names.index(test_item.name)) == 1
    )  # fmt: skip
    tan, other = tan_from_info(beside.info), tan_from_info(test_item.info)
    victim = fitsio.read(dataset.files_of(test_item, "test")[0].catalog)
    x, y = tan.pixel(*other.sky(victim["x"], victim["y"]))
    row = int(np.argmin(np.abs(x - 150)))
    first = dataset.files_of(beside, "train")[0].catalog
    change_catalog(first, x=x[row], y=y[row] + 62)
    with pytest.raises(InputError, match=r"record 0: shares sky with record \d+ of") as caught:
        dataset.check_no_leak(items)
    assert caught.value.exit_code == 3


def relabelled(items: list[Item], **info: object) -> list[Item]:
    """Return the items with changed values in their info."""
    return [replace(item, info={**item.info, **info}) for item in items]


def test_x01_planted_leak_of_a_brick_is_an_error(tmp_path: Path) -> None:
    items = made(tmp_path, [apart(2, 10, 10)], split_by="source")
    with pytest.raises(InputError, match="group 0010p060 is in the training and in the test part"):
        dataset.check_no_leak(relabelled(items, split_by="brick"))


def test_x01_planted_leak_of_a_patch_and_of_a_source_is_an_error(tmp_path: Path) -> None:
    bricks = bricks_in_row(2, n_real=60, n_fake=60)
    items = made(tmp_path, [bricks], patch_pixels=100, test_fraction=0.3)
    dataset.check_no_leak(items)
    item = next(i for i in items if i.info["n_train"] and i.info["n_test"])
    test = fitsio.read(dataset.files_of(item, "test")[0].catalog)[0]
    train = dataset.files_of(item, "train")[0].catalog
    whole = train.read_bytes()
    change_catalog(train, id=test["id"], label=test["label"])
    with pytest.raises(InputError, match=r"source rs0 (real|fake) \d+ is in the training and in"):
        dataset.check_no_leak(items)
    train.write_bytes(whole)
    change_catalog(train, x=test["x"], y=test["y"])
    with pytest.raises(InputError, match=rf"group {item.name}/\d_\d is in the training and in"):
        dataset.check_no_leak(items)


def test_the_leak_check_raises_for_a_block_index_of_another_stage(tmp_path: Path) -> None:
    block_index = write_block(tmp_path, "block-00000", apart(2, 2, 2))
    with pytest.raises(InputError, match="record 0010p060, field split_by: is missing"):
        dataset.check_no_leak(read_index(block_index))


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        (
            "x",
            np.zeros((4, 64, 64, 4), np.float16),
            r"has shape \[4, 64, 64, 4\]; expected \[n, 64",
        ),
        ("x", np.zeros((0, 64, 64, 2), np.float16), "has no stamps"),
        ("x", np.zeros((4, 64, 64, 2), np.float64), r"holds float64; expected float32 or float16"),
        ("x", np.full((4, 64, 64, 2), np.nan, np.float16), r"record 0, field g_img: has NaN"),
        ("y", np.zeros(5), r"has shape \[5\]; expected \[4\]"),
        ("y", np.zeros(4, np.int64), "holds int64; expected float64"),
        ("y", np.array([0, 1, 2, 0.0]), r"record 2, field label: is 2.0; expected 0 or 1"),
    ],
)
def test_wrong_arrays_are_errors(tmp_path: Path, name: str, array: np.ndarray, match: str) -> None:
    files = dataset.SplitFiles(tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "c.fits")
    np.save(files.x, np.zeros((4, 64, 64, 2), np.float16))
    np.save(files.y, np.zeros(4))
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=match):
        read_split(files, "g")


@pytest.mark.parametrize("size", [0, 20, 1000])
def test_truncated_arrays_are_errors(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 64, 64, 2), np.float16))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"x.npy: cannot be read: "):
        dataset.open_pixels(path, "g")
