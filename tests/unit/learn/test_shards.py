"""Streaming of shards: order, completeness, memory, symmetries, bad files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from skyproof.core.errors import InputError
from skyproof.core.seeds import stream
from skyproof.learn.inputs import Symmetries
from skyproof.learn.shards import ClassNumbers, Shards, Share, Values, ahead

SHAPE = (4, 4, 2)
ROWS = 10
STREAM = partial(stream, 7)
CLASSES = ClassNumbers(2)
DRAW = Symmetries().draw


def write_shards(folder: Path, n_shards: int, rows: int = ROWS) -> list[tuple[Path, Path]]:
    """Write shards whose pixels tell the row's number, counted over all shards."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shard in range(n_shards):
        number = shard * rows + np.arange(rows)
        x = number[:, None, None, None] + np.arange(32).reshape(SHAPE) / 64
        files.append((folder / f"x{shard:03d}.npy", folder / f"y{shard:03d}.npy"))
        np.save(files[-1][0], x.astype(np.float32))
        np.save(files[-1][1], (number % 2).astype(np.float64))
    return files


def numbers(batches: list) -> list[list[int]]:
    return [np.floor(batch.x.numpy().min(axis=(1, 2, 3))).astype(int).tolist() for batch in batches]


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(write_shards(tmp_path, 7), SHAPE, CLASSES, window=25)


def test_each_shard_is_read_once_an_epoch_and_each_row_used_once(shards: Shards):
    """o09."""
    batches = list(shards.batches(STREAM, 8, 3))
    assert set(shards.reads.values()) == {3}
    assert len(shards.reads) == 7
    for epoch in range(3):
        used = numbers([b for b in batches if b.epoch == epoch])
        rows = [row for batch in used for row in batch]
        assert sorted(rows) == list(range(70))


def test_batches_have_a_fixed_size_except_the_last_of_an_epoch(shards: Shards):
    batches = list(shards.batches(STREAM, 8, 2))
    assert shards.steps(8) == 9
    assert [len(b.y) for b in batches] == ([8] * 8 + [6]) * 2
    assert [b.step for b in batches] == list(range(18))
    for batch, rows in zip(batches, numbers(batches), strict=True):
        assert (batch.y.numpy() == np.array(rows) % 2).all()


def test_batches_mix_shards_and_epochs_differ(shards: Shards):
    batches = numbers(list(shards.batches(STREAM, 8, 2)))
    assert np.mean([len({row // ROWS for row in rows}) for rows in batches]) > 2
    assert batches[:9] != batches[9:]
    assert batches != numbers(list(shards.batches(partial(stream, 8), 8, 2)))


@pytest.mark.parametrize("first", [1, 4, 8, 9, 13, 17])
def test_a_start_within_an_epoch_gives_the_same_batches(shards: Shards, first: int):
    whole = list(shards.batches(STREAM, 8, 2, draw=DRAW))
    rest = list(shards.batches(STREAM, 8, 2, first=first, draw=DRAW))
    assert [b.step for b in rest] == list(range(first, 18))
    for a, b in zip(whole[first:], rest, strict=True):
        assert a.epoch == b.epoch
        assert (a.x == b.x).all()
        assert (a.y == b.y).all()
        assert (a.drawn == b.drawn).all()


@pytest.mark.parametrize("depths", [(0, 0), (1, 0), (0, 1), (2, 9)])
def test_threads_that_read_ahead_change_no_batch(shards: Shards, monkeypatch, depths: tuple):
    expected = list(shards.batches(STREAM, 8, 2, draw=DRAW))
    monkeypatch.setattr("skyproof.learn.shards._WINDOWS_AHEAD", depths[0])
    monkeypatch.setattr("skyproof.learn.shards._BATCHES_AHEAD", depths[1])
    found = list(shards.batches(STREAM, 8, 2, draw=DRAW))
    assert [b.step for b in found] == [b.step for b in expected]
    assert all((a.x == b.x).all() for a, b in zip(found, expected, strict=True))


def test_ranks_share_the_rows_of_a_batch_by_micro_batches(shards: Shards):
    """Three ranks, micro-batches of 3 rows: of 8 rows, 0-2, 3-5 and 6-7; of the last 6, none."""
    whole = list(shards.batches(STREAM, 8, 1, draw=DRAW))
    shared = [
        list(shards.batches(STREAM, 8, 1, draw=DRAW, share=Share(3, rank, 3))) for rank in range(3)
    ]
    for step, batch in enumerate(whole):
        parts = [batches[step] for batches in shared]
        assert [part.n_rows for part in parts] == [len(batch.y)] * 3
        assert [len(part.y) for part in parts] == ([3, 3, 2] if step < 8 else [3, 3, 0])
        assert (np.concatenate([part.x for part in parts]) == batch.x.numpy()).all()
    assert list(shared[2][8].pieces(3)) == []
    assert [len(y) for _, y, _ in whole[0].pieces(3)] == [3, 3, 2]
    assert torch.equal(torch.cat([drawn for _, _, drawn in whole[0].pieces(3)]), whole[0].drawn)


def test_a_start_within_an_epoch_reads_only_the_windows_that_it_needs(shards: Shards):
    list(shards.batches(STREAM, 8, 1, first=8))
    assert 0 < sum(shards.reads.values()) <= 4  # the last window: 3 shards, or 4 with a left-over


@pytest.mark.parametrize("n_shards", [5, 50, 200])
def test_a_window_does_not_grow_with_the_number_of_shards(tmp_path: Path, n_shards: int):
    shards = Shards(write_shards(tmp_path, n_shards, rows=2), SHAPE, CLASSES, window=9)
    windows = shards._windows(STREAM, 4, 1, 0, None)
    assert max(len(window.order) for window in windows) <= 10


def test_random_numbers_are_a_function_of_row_and_epoch(shards: Shards):
    def numbers_by_row(batch: int) -> dict[tuple[int, int], int]:
        batches = list(shards.batches(STREAM, batch, 2, draw=DRAW))
        return {
            (b.epoch, row): int(drawn)
            for b, rows in zip(batches, numbers(batches), strict=True)
            for row, drawn in zip(rows, b.drawn, strict=True)
        }

    small, large = numbers_by_row(3), numbers_by_row(16)
    assert small == large
    assert any(small[0, row] != small[1, row] for row in range(70))


def test_reading_ahead_changes_nothing_and_passes_errors_on():
    assert list(ahead(iter(range(20)), 3)) == list(range(20))

    def broken():
        yield 1
        raise InputError("x.npy", "is broken")

    items = ahead(broken(), 2)
    assert next(items) == 1
    with pytest.raises(InputError, match="is broken"):
        next(items)


def cut_short(x: Path, y: Path) -> None:
    x.write_bytes(x.read_bytes()[:-5])


def emptied(x: Path, y: Path) -> None:
    x.write_bytes(b"")


def reshaped(x: Path, y: Path) -> None:
    np.save(x, np.zeros((ROWS, 4, 4, 3), np.float32))


def of_objects(x: Path, y: Path) -> None:
    np.save(x, np.array([{}] * ROWS), allow_pickle=True)


def of_another_type(x: Path, y: Path) -> None:
    np.save(x, np.zeros((ROWS, *SHAPE), np.float16))


def of_text(x: Path, y: Path) -> None:
    np.save(x, np.full((ROWS, *SHAPE), "a"))


def short_of_labels(x: Path, y: Path) -> None:
    np.save(y, np.zeros(ROWS - 1))


def removed(x: Path, y: Path) -> None:
    x.unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_short, r"x002.npy: cannot be read.*expected a whole .npy"),
        (emptied, r"x002.npy: cannot be read"),
        (reshaped, r"x002.npy: has shape \[10, 4, 4, 3\]; expected \[n, 4, 4, 2\]"),
        (of_objects, r"x002.npy: cannot be read"),
        (of_another_type, r"x002.npy: holds float16; expected float32"),
        (of_text, r"x002.npy: holds str"),
        (short_of_labels, r"y002.npy: has 9 rows; expected 10"),
        (removed, r"x002.npy: does not exist"),
    ],
)
def test_a_bad_file_is_named_before_anything_is_trained(tmp_path: Path, harm, message: str):
    files = write_shards(tmp_path, 4)
    harm(*files[2])
    with pytest.raises(InputError, match=message):
        Shards(files, SHAPE, CLASSES)


def test_values_are_checked_when_they_are_read(tmp_path: Path):
    files = write_shards(tmp_path, 2)
    x = np.load(files[1][0])
    x[3, 0, 0, 1] = np.nan
    np.save(files[1][0], x)
    with pytest.raises(InputError, match=r"x001.npy, record row 3: holds NaN"):
        list(Shards(files, SHAPE, CLASSES).batches(STREAM, 8, 1))


@pytest.mark.parametrize("label", [2.0, 0.5, -1.0, np.nan])
def test_a_label_that_is_no_class_is_an_error(tmp_path: Path, label: float):
    files = write_shards(tmp_path, 2)
    y = np.load(files[0][1])
    y[4] = label
    np.save(files[0][1], y)
    with pytest.raises(InputError, match=r"y000.npy, record row 4: .*class number below 2"):
        list(Shards(files, SHAPE, CLASSES).batches(STREAM, 8, 1))


def test_no_rows_are_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="holds no rows"):
        Shards(write_shards(tmp_path, 2, rows=0), SHAPE, CLASSES)


def test_targets_have_any_shape_and_type(tmp_path: Path):
    """Maps stored as whole numbers; a micro-batch in file order has rows of one file."""
    maps = np.arange(2 * 5 * 4).reshape(2, 5, 2, 2, 1).astype(np.uint8)
    files = [(tmp_path / f"x{k}.npy", tmp_path / f"y{k}.npy") for k in range(2)]
    for (x_path, y_path), y in zip(files, maps, strict=True):
        np.save(x_path, y[..., 0].astype(np.int16))
        np.save(y_path, y)
    shards = Shards(files, (2, 2), Values((2, 2, 1), np.dtype("float64")))
    for batch in shards.batches(STREAM, 4, 2):
        assert batch.y.dtype == torch.float64
        assert batch.y.shape[1:] == (2, 2, 1)
        assert torch.equal(batch.x.double(), batch.y[..., 0])
    pieces = [list(shards.in_order(Share(3, rank, 2))) for rank in range(2)]
    assert [[len(y) for _, y, _ in part] for part in pieces] == [[3, 3], [2, 2]]
    found = torch.cat([pieces[0][0][1], pieces[1][0][1], pieces[0][1][1], pieces[1][1][1]])
    assert torch.equal(found, torch.from_numpy(maps.reshape(10, 2, 2, 1)).double())
    with pytest.raises(InputError, match=r"y0.npy: has shape \[5, 2, 2, 1\]; expected \[n\]"):
        Shards(files, (2, 2), Values())


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])  # 1e300 is no float32
def test_a_target_that_is_not_finite_is_an_error(tmp_path: Path, value: float):
    files = write_shards(tmp_path, 2)
    y = np.load(files[1][1])
    y[7] = value
    np.save(files[1][1], y)
    shards = Shards(files, SHAPE, Values())
    with pytest.raises(InputError, match=r"y001.npy, record row 7: holds NaN or infinity"):
        list(shards.batches(STREAM, 8, 1))
    with pytest.raises(InputError, match=r"y001.npy, record row 7: holds NaN or infinity"):
        list(shards.in_order(Share(4)))


def test_resident_shards_are_the_same_rows_read_once(tmp_path: Path):
    files = write_shards(tmp_path, 5)
    streamed = Shards(files, SHAPE, CLASSES, window=20)
    resident = Shards(files, SHAPE, CLASSES, window=20, resident=True)
    for a, b in zip(*(s.batches(STREAM, 8, 2) for s in (streamed, resident)), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
    for a, b in zip(*(s.in_order(Share(3)) for s in (streamed, resident)), strict=True):
        assert torch.equal(a[0], b[0])
    assert set(resident.reads.values()) == {1}
    assert set(streamed.reads.values()) == {2}
