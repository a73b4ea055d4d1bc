"""Stage obiwan.assign: assign groups of stamps to the training and test part, and find overlaps.

A group is a brick or, with `patch_pixels`, a square patch of a brick. Its part follows from the
rank of the hash of its name: the number of test groups is exact, and the assignment does not depend
on blocks, ranks or order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from skyproof.core.blocks import Item, read_indexes
from skyproof.core.errors import InputError
from skyproof.core.split import test_groups
from skyproof.obiwan.groups import TEST, TRAIN, Group, group_names, write_table
from skyproof.obiwan.stamps.overlap import Neighbours, images_touch
from skyproof.obiwan.stamps.reader import CLASSES, read_stamp_table, stamp_files
from skyproof.sky.tan import Tan, tan_from_info

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Assign


@dataclass(frozen=True)
class BrickCounts:
    """Projection of a brick with stamps, and its number of stamps by group and class."""

    name: str
    tan: Tan
    counts: dict[str, Counter[str]]


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Assign, context: Context
) -> None:
    """Read the block indexes of stamps and write the table of groups."""
    bricks = read_bricks(inputs.cutouts, options.patch_pixels)
    part_of = assign_parts(bricks, options.test_fraction, options.seed, inputs.cutouts[0])
    across = find_overlaps(bricks, part_of)
    write_table(
        outputs.membership,
        [
            Group(
                group, brick.name, part_of[group], counts["real"], counts["fake"],
                tuple(across[brick.name, part_of[group]]), brick.tan,
            )
            for brick in bricks
            for group, counts in sorted(brick.counts.items())
        ],
    )  # fmt: skip
    n_test = sum(part == TEST for part in part_of.values())
    context.log.info("%d of %d groups are in the test part", n_test, len(part_of))


def read_bricks(indexes: Sequence[Path], patch_pixels: int) -> list[BrickCounts]:
    """Return the bricks that have stamps, sorted by name, without those marked `bad`."""
    bricks: dict[str, BrickCounts] = {}
    for item in read_indexes(indexes):
        if item.name in bricks:
            raise InputError(item.index, "is in two block indexes", record=item.name)
        if "bad" in item.info:
            continue
        counts = count_stamps(item, patch_pixels)
        if counts:
            bricks[item.name] = BrickCounts(item.name, tan_from_info(item.info, item.index), counts)
    return [bricks[name] for name in sorted(bricks)]


def count_stamps(item: Item, patch_pixels: int) -> dict[str, Counter[str]]:
    """Return group -> class -> number of stamps, without empty groups.

    The numbers of whole bricks are in the block index; for patches the tables of stamps are read.
    """
    if patch_pixels == 0:
        total = Counter({kind: int(item.known(f"n_{kind}", "obiwan.cutouts")) for kind in CLASSES})
        return {item.name: total} if total.total() else {}
    counts: dict[str, Counter[str]] = {}
    for kind in CLASSES:
        for path in stamp_files(item, kind):
            table = read_stamp_table(path)
            for group in group_names(item.name, table["x"], table["y"], patch_pixels):
                counts.setdefault(str(group), Counter())[kind] += 1
    return counts


def assign_parts(
    bricks: Sequence[BrickCounts], fraction: float, seed: int, file: Path
) -> dict[str, str]:
    """Return group -> part.

    Groups with stamps of both classes are divided between the parts. The others are in the training
    part, because they are of no use in the test (the split balances the classes over the training
    groups of a brick).
    """
    counts = {group: count for brick in bricks for group, count in brick.counts.items()}
    useful = [group for group in counts if all(counts[group][kind] for kind in CLASSES)]
    if len(useful) < 2:
        raise InputError(
            file,
            "stamps of both classes are in one group only" if useful
            else "no group has stamps of both classes",
            expected="two bricks or more, or obiwan.patch_pixels > 0, which splits within bricks",
        )  # fmt: skip
    chosen = test_groups(useful, fraction, seed)
    return {group: TEST if group in chosen else TRAIN for group in counts}


def find_overlaps(
    bricks: Sequence[BrickCounts], part_of: Mapping[str, str]
) -> dict[tuple[str, str], list[str]]:
    """Return (brick, part) -> names of overlapping bricks that have groups of the other part.

    Two bricks overlap if their images cover common sky. Names are sorted.
    """
    parts = [{part_of[group] for group in brick.counts} for brick in bricks]
    neighbours = Neighbours([brick.tan for brick in bricks])
    pairs = [
        (a, b)
        for a in range(len(bricks))
        for b in neighbours.near(a)
        if a < b and parts[a] | parts[b] == {TRAIN, TEST}
    ]
    touching = images_touch([bricks[a].tan for a, _ in pairs], [bricks[b].tan for _, b in pairs])
    across: dict[tuple[str, str], list[str]] = {
        (brick.name, part): [] for brick in bricks for part in (TRAIN, TEST)
    }
    for a, b in (pair for pair, found in zip(pairs, touching, strict=True) if found):
        for one, other in ((a, b), (b, a)):
            for part, opposite in ((TRAIN, TEST), (TEST, TRAIN)):
                if opposite in parts[other]:
                    across[bricks[one].name, part].append(bricks[other].name)
    return {key: sorted(names) for key, names in across.items()}
