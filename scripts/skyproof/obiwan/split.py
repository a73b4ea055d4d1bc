"""Stage obiwan.split: shuffled arrays of both parts, by brick, with equal numbers of both classes.

A group (brick or patch) is in one part only. Training stamps that overlap the sky of the test part
are excluded, because neighbouring bricks overlap and stamps extend beyond the edge of a patch.
`split_by: source` is the rule of the original: 80/20 within each brick, so that both parts share
sky. Memory: the pixels of one file, for any size and number of bricks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skyproof.core.blocks import Item, ItemFiles, read_index
from skyproof.core.errors import InputError
from skyproof.core.formats import write
from skyproof.obiwan.dataset import split_names
from skyproof.obiwan.groups import TEST, TRAIN, Group, group_names, patch_index, read_table
from skyproof.obiwan.stamps.geometry import HALF, STAMP, stamp_boxes
from skyproof.obiwan.stamps.overlap import MARGIN_PIXELS, image_box, project, touch
from skyproof.obiwan.stamps.reader import CLASSES, read_stamps
from skyproof.obiwan.survey import brick_folder, stamp_dtype
from skyproof.sky.stamps import centre_pixel
from skyproof.sky.tan import Tan, footprint_info

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Split


class Stamps(NamedTuple):
    """The stamps of a brick; row numbers count the real ones first, then the injected ones."""

    brick: str
    paths: tuple[Path, Path]
    images: tuple[np.ndarray, np.ndarray]  # of each class, float32 [n, 64, 64, band]
    weights: tuple[np.ndarray, np.ndarray]
    table: np.ndarray


class Chunk(NamedTuple):
    """The rows of one file, in order; k counts from 1 in each brick and part."""

    part: str
    k: int
    rows: np.ndarray


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Split, context: Context
) -> None:
    """Write the arrays of every brick of a block, and the block index.

    Raise InputError for a brick that is not in the table or whose values do not fit the type.
    """
    items = {item.name: item for item in read_index(inputs.cutouts)}
    groups = read_table(inputs.membership, items)
    if options.split_by == "source" and context.comm.rank == 0:
        context.log.warning(
            "split_by: source: stamps of the same sky are in both parts, as in the original; "
            "a network may memorise the sky instead of learning the features of injected galaxies"
        )

    def make(brick: str, files: ItemFiles) -> dict[str, Any]:
        if "bad" in items[brick].info:
            return {"bad": items[brick].info["bad"], **_counts([], 0, options)}
        stamps = read_brick(items[brick], options.bands)
        if not len(stamps.table):
            return _counts([], 0, options)
        parts = part_of_rows(stamps, groups.get(brick, []), options, inputs.membership)
        dropped = 0
        if options.split_by == "source":
            chunks = list(chunks_by_source(stamps, options, context))
        else:
            lost = (parts == TRAIN) & touches_test_sky(stamps, parts, groups, options.patch_pixels)
            dropped = int(lost.sum())
            chunks = list(chunks_by_group(stamps, np.where(lost, "", parts), options, context))
        for chunk in chunks:
            write_chunk(stamps, chunk, options, files)
        return footprint_info(groups[brick][0].tan) | _counts(chunks, dropped, options)

    context.each(list(items), make, outputs.split)


def read_brick(item: Item, bands: str) -> Stamps:
    """Read the stamps of both classes of a brick."""
    folder = f"hdf5/{brick_folder(item.name)}/{item.name}"
    paths = [item.path(f"{kind}/{folder}/img_ivar_{bands}.hdf5") for kind in CLASSES]
    (real, real_ivar, real_table), (fake, fake_ivar, fake_table) = map(read_stamps, paths)
    tables = [
        checked_table(path, table, label, bands)
        for label, (path, table) in enumerate(zip(paths, (real_table, fake_table), strict=True))
    ]
    return Stamps(
        item.name,
        (paths[0], paths[1]),
        (real, fake),
        (real_ivar, fake_ivar),
        np.concatenate(tables),
    )


def checked_table(path: Path, table: np.ndarray, label: int, bands: str) -> np.ndarray:
    """Return a table with exactly the columns of a table of stamps.

    Raise InputError if a column is missing or a label is wrong.
    """
    whole = np.empty(len(table), stamp_dtype(bands))
    for name in stamp_dtype(bands).names or ():
        if name not in (table.dtype.names or ()):
            raise InputError(path, "has no such column", field=name, expected="a table of stamps")
        whole[name] = table[name]
    wrong = np.flatnonzero(whole["label"] != label)
    if len(wrong):
        raise InputError(
            path, f"is {whole['label'][wrong[0]]}", record=int(wrong[0]), field="label",
            expected=f"{label} ({CLASSES[label]})",
        )  # fmt: skip
    return whole


def part_of_rows(
    stamps: Stamps, groups: Sequence[Group], options: Split, membership: Path
) -> np.ndarray:
    """Return the part of every stamp, str [n], from the table of groups."""
    part_of = {group.name: group.part for group in groups}
    names = group_names(stamps.brick, stamps.table["x"], stamps.table["y"], options.patch_pixels)
    unknown = sorted(set(names.tolist()) - set(part_of))
    if unknown:
        raise InputError(
            membership, "has no such group", record=unknown[0],
            expected="the table made by obiwan.assign from these stamps with this patch_pixels",
        )  # fmt: skip
    return np.array([part_of[name] for name in names.tolist()])


def touches_test_sky(
    stamps: Stamps, parts: np.ndarray, groups: Mapping[str, Sequence[Group]], patch_pixels: int
) -> np.ndarray:
    """Return whether each stamp covers sky that a test stamp may cover, bool [n].

    In the same brick (with patches): the boxes of the test stamps of all realisations. In another
    brick: the whole image of a test brick, or the area that stamps of a test patch may cover. The
    stamps of another brick are not read, because it may belong to another block.
    """
    tan = groups[stamps.brick][0].tan
    x, y = stamps.table["x"], stamps.table["y"]
    touched = near_centres(x, y, parts == TEST, tan)
    boxes = stamp_boxes(x, y)
    names = {
        name for group in groups[stamps.brick] if group.part == TRAIN for name in group.overlaps
    }
    for name in sorted(names):
        other = groups[name][0].tan
        area = np.concatenate(
            [group_box(group, patch_pixels) for group in groups[name] if group.part == TEST]
        )
        there = project(boxes, tan, other)
        touched |= touch(there[:, None], area[None], MARGIN_PIXELS).any(axis=1)
    return touched


def near_centres(x: np.ndarray, y: np.ndarray, chosen: np.ndarray, tan: Tan) -> np.ndarray:
    """Return whether each stamp at x, y [n] shares a pixel with a chosen stamp, bool [n]."""
    cx, cy = centre_pixel(x, y)
    reach = STAMP - 1  # largest distance of centres whose stamps share a row of pixels
    near = np.zeros((tan.width, tan.height), dtype=bool)
    for i, j in zip(cx[chosen], cy[chosen], strict=True):
        near[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1] = True
    return near[cx, cy]


def group_box(group: Group, patch_pixels: int) -> np.ndarray:
    """Return the box [1, 4] that contains all stamps of a group, in pixels of its brick."""
    patch = patch_index(group.name)
    if patch is None:
        return image_box(group.tan)
    low = np.array(patch) * patch_pixels - 0.5 - HALF
    high = low + patch_pixels + STAMP
    return np.array([[low[0], high[0], low[1], high[1]]])


def chunks_by_group(
    stamps: Stamps, parts: np.ndarray, options: Split, context: Context
) -> Iterator[Chunk]:
    """Yield the chunks of both parts, with equal numbers of both classes in random order.

    The class with more stamps in this brick and part is subsampled at random.
    """
    for part, rows in ((TRAIN, options.rows_train), (TEST, options.rows_test)):
        real, fake = shuffled_classes(stamps, parts == part, context, part)
        for k, start in enumerate(range(0, len(real), rows // 2), start=1):
            piece = slice(start, start + rows // 2)
            both = np.concatenate([real[piece], fake[piece]])
            yield Chunk(part, k, context.stream(stamps.brick, part, k).permutation(both))


def chunks_by_source(stamps: Stamps, options: Split, context: Context) -> Iterator[Chunk]:
    """Yield chunks by the original's rule: 640 rows, 320 of each class, are divided 512 to 128.

    The last, shorter piece is divided in the same ratio, rounded down. Classes alternate before the
    division, so that both parts have equal numbers of them (in the last piece up to one row).
    """
    real, fake = shuffled_classes(stamps, np.ones(len(stamps.table), dtype=bool), context, "source")
    rows = options.rows_train + options.rows_test
    both = np.stack([real, fake], axis=1).ravel()
    for k, start in enumerate(range(0, len(both), rows), start=1):
        piece = both[start : start + rows]
        cut = len(piece) * options.rows_train // rows
        for part, side in ((TRAIN, piece[:cut]), (TEST, piece[cut:])):
            if len(side):
                yield Chunk(part, k, context.stream(stamps.brick, part, k).permutation(side))


def shuffled_classes(
    stamps: Stamps, allowed: np.ndarray, context: Context, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return equal numbers of allowed rows of each class, as many as possible, in random order."""
    label = stamps.table["label"]
    real, fake = (
        context.stream(stamps.brick, part, kind).permutation(
            np.flatnonzero(allowed & (label == value))
        )
        for value, kind in enumerate(CLASSES)
    )
    n = min(len(real), len(fake))
    return real[:n], fake[:n]


def write_chunk(stamps: Stamps, chunk: Chunk, options: Split, files: ItemFiles) -> None:
    """Write pixels, labels and catalogue of one chunk."""
    x_name, y_name, catalog = split_names(stamps.brick, chunk.part, chunk.k)
    table = stamps.table[chunk.rows]
    with files.write(x_name) as path:
        write.npy(path, pixels(stamps, chunk.rows, options))
    with files.write(y_name) as path:
        write.npy(path, table["label"].astype(np.float64))
    with files.write(catalog) as path:
        write.fits_table(path, table)


def pixels(stamps: Stamps, rows: np.ndarray, options: Split) -> np.ndarray:
    """Return the pixels of rows [n] as [n, 64, 64, 2 x bands]: g_img, g_ivar, r_img, ...

    Raise InputError for a value that is not finite or does not fit the type.
    """
    x = np.empty((len(rows), STAMP, STAMP, 2 * len(options.bands)), dtype=options.dtype)
    n_real = len(stamps.images[0])
    for i, row in enumerate(rows):
        label = int(row >= n_real)
        index = row - n_real * label
        x[i, ..., 0::2] = stored(stamps.images[label][index], "img", stamps, row, options)
        x[i, ..., 1::2] = stored(stamps.weights[label][index], "ivar", stamps, row, options)
    return x


def stored(
    plane: np.ndarray, field: str, stamps: Stamps, row: np.integer, options: Split
) -> np.ndarray:
    """Return one stamp [64, 64, bands] in the stored type.

    Raise InputError for a value that is not finite or exceeds the range of float16. An inverse
    variance that would underflow becomes the smallest positive number, because 0 means masked.
    """
    largest = float(np.finfo(options.dtype).max)
    if not np.abs(plane).max() <= largest:  # NaN too
        source = stamps.table[row]
        value = plane.flat[np.argmax(~(np.abs(plane) <= largest))]
        raise InputError(
            stamps.paths[int(source["label"])],
            f"has {value:g}",
            record=f"{source['rs'].decode()} {source['id']}".strip(),
            field=field,
            expected=f"finite numbers up to {largest:g}"
            + (", or dtype: float32" if options.dtype == "float16" and np.isfinite(value) else ""),
        )
    small = plane.astype(options.dtype)
    if field == "ivar":
        small[(plane > 0) & (small == 0)] = np.finfo(options.dtype).smallest_subnormal
    return small


def _counts(chunks: Sequence[Chunk], dropped: int, options: Split) -> dict[str, Any]:
    """Return the entry of a brick in the block index."""
    rows = {part: [len(c.rows) for c in chunks if c.part == part] for part in (TRAIN, TEST)}
    return {
        "n_train": sum(rows[TRAIN]),
        "n_test": sum(rows[TEST]),
        "files": {part: len(rows[part]) for part in rows},
        "dropped": dropped,
        "split_by": options.split_by,
        "patch_pixels": options.patch_pixels,
    }
