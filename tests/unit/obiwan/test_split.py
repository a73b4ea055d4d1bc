"""The arrays of a split: counts, names, channels, and no common sky of the parts."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fitsio
import h5py
import numpy as np
import pytest

from skyproof.core.blocks import Item
from skyproof.core.errors import InputError, UsageError
from skyproof.core.options import validate
from skyproof.core.stage import Context
from skyproof.obiwan import dataset, split
from skyproof.obiwan.options import Split
from skyproof.sky.tan import Tan, tan_from_info
from tests.conftest import skyproof, tree_bytes
from tests.unit.obiwan.build.split import SEED, apart, made, part_of, read_split, rows_of, split_of
from tests.unit.obiwan.build.stamps import (
    Brick,
    bricks_in_row,
    image_value,
    tan_at,
    weight_value,
    write_block,
)


def test_o05_o07_channels_labels_and_catalogue_belong_together(tmp_path: Path) -> None:
    """o05: g_img, g_ivar, r_img, r_ivar, z_img, z_ivar; o07: real 0, fake 1."""
    items = made(
        tmp_path, [apart(3, 9, 7)], bands="grz", rows_train=8, rows_test=4, dtype="float16"
    )
    assert dataset.channels("grz") == ["g_img", "g_ivar", "r_img", "r_ivar", "z_img", "z_ivar"]
    files = dataset.training_files(items) + dataset.test_files(items)
    assert len(files) == 2 * 2 + 4
    for one in files:
        x, y = read_split(one, "grz")
        table = fitsio.read(one.catalog)
        assert x.dtype == np.float16
        assert y.dtype == np.float64
        assert len(x) == len(y) == len(table)
        np.testing.assert_array_equal(y, table["label"])
        kind = np.where(y == 1, "fake", "real")
        for row in range(len(x)):
            brick = one.x.parent.name
            with h5py.File(
                tmp_path / f"cutouts/{kind[row]}/hdf5/{brick[:3]}/{brick}/img_ivar_grz.hdf5"
            ) as file:
                assert table["x"][row] == file["table"]["x"][table["id"][row]]
        for band in range(3):
            value = image_value(y, table["id"], band)[:, None, None]
            assert np.all(x[..., 2 * band] == value)
            assert np.all(x[..., 2 * band + 1] == weight_value(band))


def test_axes_keep_their_order(tmp_path: Path) -> None:
    block_index = write_block(tmp_path / "cutouts", "block-00000", apart(2, 2, 2))
    ramp = np.arange(64.0 * 64).reshape(64, 64) / 2
    for path in (tmp_path / "cutouts").rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            file["img"][...] = ramp[None, :, :, None]
    items = split_of(tmp_path, [block_index], bands="g")
    for one in dataset.training_files(items):
        np.testing.assert_array_equal(np.load(one.x)[0, :, :, 0], ramp)


def test_rows_are_exact_balanced_and_used_once(tmp_path: Path) -> None:
    items = made(tmp_path, [apart(5, 23, 17)], rows_train=8, rows_test=4)
    parts = part_of(tmp_path)
    for item in items:
        part = parts[item.name]
        other = {"train": "test", "test": "train"}[part]
        assert item.info[f"n_{part}"] == 2 * 17
        assert item.info[f"n_{other}"] == item.info["dropped"] == 0
        files = dataset.files_of(item, part)
        assert rows_of(files) == ([8] * 4 + [2] if part == "train" else [4] * 8 + [2])
        assert item.info["files"] == {part: len(files), other: 0}
        seen: list[tuple[int, int]] = []
        for one in files:
            table = fitsio.read(one.catalog)
            assert 2 * table["label"].sum() == len(table)
            seen += list(zip(table["label"].tolist(), table["id"].tolist(), strict=True))
        assert len(seen) == len(set(seen))
        assert {number for label, number in seen if label == 1} == set(range(17))
        assert {number for label, number in seen if label == 0} != set(range(17))


def test_rows_are_mixed(tmp_path: Path) -> None:
    """Neither the classes nor the identifiers of the injected galaxies are in order."""
    items = made(tmp_path, [apart(2, 60, 60)])
    (one,) = dataset.training_files(items)
    table = fitsio.read(one.catalog)
    assert 20 < np.sum(np.diff(table["label"].astype(int)) != 0) < 100
    identifiers = table["id"][table["label"] == 1]
    assert np.any(np.diff(identifiers) < 0)


@pytest.mark.parametrize(
    ("n", "train", "test"),
    [
        (320, [512], [128]),
        (640, [512, 512], [128, 128]),
        (403, [512, 132], [128, 34]),
        (7, [11], [3]),
        (1, [1], [1]),
    ],
)
def test_o06_original_files_and_last_chunk(
    tmp_path: Path, n: int, train: list[int], test: list[int]
) -> None:
    """o06: chunks of 512 + 128 rows, the last one cut 80/20; n a multiple of 320 works."""
    items = made(tmp_path, [apart(2, n + 5, n)], split_by="source")
    for item in items:
        names = {path.name for path in item.paths}
        assert names == {
            name
            for part in ("train", "test")
            for k in range(1, len(train) + 1)
            for name in (f"x{part}_{k}.npy", f"y{part}_{k}.npy", f"catalog_{part}_{k}.fits")
        }
        assert item.paths[0].parent.parent.parent.name == "testtrain"
        assert item.paths[0].parent.parent.name == item.name[:3]
        assert rows_of(dataset.files_of(item, "train")) == train
        assert rows_of(dataset.files_of(item, "test")) == test
        for part in ("train", "test"):
            for one in dataset.files_of(item, part):
                y = np.load(one.y)
                assert abs(2 * y.sum() - len(y)) <= 1
    if n == 320:
        x = dataset.open_pixels(dataset.training_files(items)[0].x, "g")
        assert x.shape == (512, 64, 64, 2)


def test_more_than_nine_files_keep_their_order(tmp_path: Path) -> None:
    items = made(tmp_path, [apart(2, 24, 24)], rows_train=4, rows_test=4)
    names = [one.x.name for one in dataset.training_files(items)]
    assert names == [f"xtrain_{k}.npy" for k in range(1, 13)]


def covered_by(x: float, y: float, tan: Tan, boxes: np.ndarray, other: Tan) -> bool:
    """Brute force: whether a pixel of the stamp at x, y lies in one of the boxes of the other."""
    cx, cy = np.floor(x + 0.5), np.floor(y + 0.5)
    grid = np.arange(-32, 32)
    gx, gy = np.meshgrid(cx + grid, cy + grid)
    px, py = (p.ravel()[:, None] for p in other.pixel(*tan.sky(gx, gy)))
    return bool(
        np.any((px > boxes[:, 0]) & (px < boxes[:, 1]) & (py > boxes[:, 2]) & (py < boxes[:, 3]))
    )


def shared_sky(items: list[Item]) -> int:
    """Return how many training stamps cover sky of a test stamp, by brute force."""
    tests = []
    for item in items:
        for one in dataset.files_of(item, "test"):
            table = fitsio.read(one.catalog)
            cx, cy = np.floor(table["x"] + 0.5), np.floor(table["y"] + 0.5)
            boxes = np.stack([cx - 32.5, cx + 31.5, cy - 32.5, cy + 31.5], axis=1)
            tests.append((tan_from_info(item.info), boxes))
    count = 0
    for item in items:
        tan = tan_from_info(item.info)
        for one in dataset.files_of(item, "train"):
            for row in fitsio.read(one.catalog):
                count += any(
                    covered_by(row["x"], row["y"], tan, boxes, other) for other, boxes in tests
                )
    return count


def turned(bricks: list[Brick]) -> list[Brick]:
    """Return the bricks with their images rotated, each by a different angle."""
    return [
        replace(brick, tan=tan_at(brick.tan.ra, brick.tan.dec, 300, turn=10.0 * i))
        for i, brick in enumerate(bricks)
    ]


@pytest.mark.parametrize("patch_pixels", [0, 100])
@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("where", [{"ra": 359.98, "dec": 30.0}, {"ra": 10.0, "dec": 89.5}])
def test_o16_no_sky_in_both_parts(
    tmp_path: Path, where: dict[str, float], turn: bool, patch_pixels: int
) -> None:
    """o16: with overlapping bricks in several blocks, rotated or not, and with patches."""
    bricks = bricks_in_row(6, n_real=14, n_fake=14, **where)
    bricks = turned(bricks) if turn else bricks
    unchecked = made(tmp_path / "source", [bricks], split_by="source")
    assert shared_sky(unchecked) > 0
    items = made(
        tmp_path / "brick", [bricks[:3], bricks[3:]], patch_pixels=patch_pixels, test_fraction=0.34
    )
    assert sum(item.info["dropped"] for item in items) > 0
    assert sum(item.info["n_train"] for item in items) > 0
    assert shared_sky(items) == 0
    dataset.check_no_leak(items)


def test_only_stamps_near_test_sky_are_dropped(tmp_path: Path) -> None:
    """Bricks overlap by 100 of 300 pixels: stamps beyond 132 pixels from the edge are kept."""
    bricks = bricks_in_row(4, n_real=40, n_fake=40)
    items = made(tmp_path, [bricks], test_fraction=0.25)
    parts = part_of(tmp_path)
    order = [brick.name for brick in bricks]
    for item in items:
        if parts[item.name] == "test":
            continue
        i = order.index(item.name)
        tan = tan_from_info(item.info)
        near = np.zeros(80, dtype=bool)
        x = np.concatenate(positions(tmp_path, item.name))
        for j in (i - 1, i + 1):
            if 0 <= j < len(order) and parts[order[j]] == "test":
                other = next(b.tan for b in bricks if b.name == order[j])
                edge, _ = tan.pixel(*other.sky([0, 299], 150))
                near |= (x > edge.min() - 33.5) & (x < edge.max() + 33.5)
        assert abs(item.info["dropped"] - near.sum()) <= 1
        labels = np.repeat([0, 1], 40)
        keeps = [np.sum(~near & (labels == label)) for label in (0, 1)]
        assert abs(item.info["n_train"] - 2 * min(keeps)) <= 2


def positions(folder: Path, brick: str) -> list[np.ndarray]:
    """Return x of the stamps of both classes of a brick."""
    found = []
    for kind in ("real", "fake"):
        path = folder / f"cutouts/{kind}/hdf5/{brick[:3]}/{brick}/img_ivar_g.hdf5"
        with h5py.File(path) as file:
            found.append(file["table"]["x"])
    return found


@pytest.mark.parametrize("patch_pixels", [0, 100])
def test_block_size_does_not_change_the_bytes(tmp_path: Path, patch_pixels: int) -> None:
    bricks = bricks_in_row(5, n_real=12, n_fake=11)
    made(tmp_path / "a", [bricks], patch_pixels=patch_pixels, rows_train=8)
    made(tmp_path / "b", [[b] for b in reversed(bricks)], patch_pixels=patch_pixels, rows_train=8)
    trees = [tree_bytes(tmp_path / name / "split/testtrain") for name in "ab"]
    assert trees[0] == trees[1]
    assert len(trees[0]) > 10


def test_bad_and_empty_bricks_have_no_files(tmp_path: Path) -> None:
    bricks = apart(5, 4, 4)
    bricks[0] = replace(bricks[0], bad="no image")
    bricks[1] = replace(bricks[1], n_real=0, n_fake=0)
    bricks[2] = replace(bricks[2], n_fake=0)
    items = {item.name: item for item in made(tmp_path, [bricks])}
    for brick in bricks[:3]:
        item = items[brick.name]
        assert item.paths == ()
        assert item.info["n_train"] == item.info["n_test"] == 0
    assert items[bricks[0].name].info["bad"] == "no image"
    dataset.check_no_leak(items.values())


def spoil(folder: Path, field: str, value: float, row: int = 0) -> None:
    """Put a value into one pixel of a stamp of every file of stamps."""
    for path in folder.rglob("fake/**/*.hdf5"):
        with h5py.File(path, "r+") as file:
            file[field][row, 5, 6, 0] = value


@pytest.mark.parametrize(
    ("field", "value", "dtype", "match"),
    [
        ("ivar", 70000.0, "float16", r"rs0 1, field ivar: has 70000; .* or dtype: float32"),
        ("img", -70000.0, "float16", r"rs0 1, field img: has -70000; .* or dtype: float32"),
        ("img", np.nan, "float32", r"rs0 1, field img: has nan; expected finite"),
        ("ivar", np.inf, "float16", r"rs0 1, field ivar: has inf; expected finite numbers up to"),
    ],
)
def test_values_that_do_not_fit_are_errors(
    tmp_path: Path, field: str, value: float, dtype: str, match: str
) -> None:
    block_index = write_block(tmp_path / "cutouts", "block-00000", apart(2, 4, 4))
    spoil(tmp_path / "cutouts", field, value, row=1)
    with pytest.raises(InputError, match=match):
        split_of(tmp_path, [block_index], bands="g", dtype=dtype)
    assert not (tmp_path / "split/block-00000.json").exists()


def test_a_large_weight_fits_float32(tmp_path: Path) -> None:
    block_index = write_block(tmp_path / "cutouts", "block-00000", apart(2, 4, 4))
    spoil(tmp_path / "cutouts", "ivar", 70000.0)
    items = split_of(tmp_path, [block_index], bands="g", dtype="float32")
    assert max(np.load(one.x).max() for one in dataset.training_files(items)) == 70000.0


def test_a_small_weight_stays_unmasked_in_float16(tmp_path: Path) -> None:
    block_index = write_block(tmp_path / "cutouts", "block-00000", apart(2, 4, 4))
    spoil(tmp_path / "cutouts", "ivar", 1e-12)
    items = split_of(tmp_path, [block_index], bands="g", dtype="float16")
    (one,) = dataset.training_files(items)
    ivar = np.load(one.x)[..., 1]
    assert np.sum(ivar == np.finfo(np.float16).smallest_subnormal) == 1
    assert not np.any(ivar == 0)


def test_a_table_of_another_run_is_an_error(tmp_path: Path) -> None:
    bricks = apart(4, 4, 4)
    made(tmp_path, [bricks[:2]])
    block_index = write_block(tmp_path / "more", "block-00001", bricks[2:])
    with pytest.raises(InputError, match=r"membership.csv, record 0210p060: has no such group"):
        split.run(
            SimpleNamespace(cutouts=block_index, membership=tmp_path / "assign/membership.csv"),
            SimpleNamespace(split=tmp_path / "split/block-00001.json"),
            Split(bands="g"),
            Context("obiwan.split", seed=SEED),
        )


def test_odd_numbers_of_rows_are_errors() -> None:
    with pytest.raises(UsageError, match=r"rows_train: .*multiple of 2"):
        validate(Split, {"rows_train": 511}, "config.yaml")


def test_split_by_source_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "skyproof"):
        items = made(tmp_path, [apart(2, 4, 4)], split_by="source")
        assert "stamps of the same sky are in both parts" in caplog.text
        caplog.clear()
        dataset.check_no_leak(items)
        assert "no leak check" in caplog.text


@pytest.mark.mpi
@pytest.mark.slow
def test_o17_ranks_do_not_change_the_bytes(tmp_path: Path) -> None:
    """o17: one, two and four ranks write the same files and the same block index."""
    bricks = bricks_in_row(5, n_real=9, n_fake=8)
    made(tmp_path, [bricks], rows_train=8)
    expected = tree_bytes(tmp_path / "split")
    for ranks in (1, 2, 4):
        folder = tmp_path / f"ranks-{ranks}"
        result = skyproof(
            "obiwan.split",
            "--in", f"cutouts={tmp_path}/cutouts/block-00000.json",
            f"membership={tmp_path}/assign/membership.csv",
            "--out", f"split={folder}/block-00000.json",
            "--bands", "g", "--rows-train", "8", "--seed", str(SEED),
            ranks=ranks,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert tree_bytes(folder) == expected


def test_the_block_index_gives_the_numbers_of_rows(tmp_path: Path) -> None:
    made(tmp_path, [apart(2, 4, 4)])
    content = json.loads((tmp_path / "split/block-00000.json").read_text())
    for entry in content["items"].values():
        assert set(entry["info"]) == {
            "ra", "dec", "width", "height", "wcs", "n_train", "n_test", "files", "dropped",
            "split_by", "patch_pixels",
        }  # fmt: skip
