"""The table of groups: exact numbers of groups per part, and overlapping bricks."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.core.stage import Context
from skyproof.obiwan import assign
from skyproof.obiwan.groups import read_table
from skyproof.obiwan.options import Assign
from skyproof.obiwan.stamps.overlap import Neighbours, images_touch
from skyproof.sky.tan import Tan
from tests.unit.obiwan.build.stamps import Brick, bricks_in_row, row_of_bricks, tan_at, write_block


def assigned(folder: Path, indexes: list[Path], **options: object) -> list[dict[str, str]]:
    """Run the stage and return the rows of its table."""
    table = folder / "membership.csv"
    assign.run(
        SimpleNamespace(cutouts=indexes),
        SimpleNamespace(membership=table),
        Assign(**options),
        Context("obiwan.assign", seed=20180501),
    )
    with open(table, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_parts_are_exact_and_bricks_without_stamps_have_no_row(tmp_path: Path) -> None:
    bricks = bricks_in_row(12, n_real=3, n_fake=2)
    bricks[3] = replace(bricks[3], bad="no image")
    bricks[5] = replace(bricks[5], n_real=0, n_fake=0)
    rows = assigned(tmp_path, [write_block(tmp_path, "block-00000", bricks)])
    assert [row["brick"] for row in rows] == sorted(
        brick.name for i, brick in enumerate(bricks) if i not in (3, 5)
    )
    assert sum(row["part"] == "test" for row in rows) == 2  # 0.2 of 10
    assert {(row["n_real"], row["n_fake"]) for row in rows} == {("3", "2")}


@pytest.mark.parametrize("patch_pixels", [0, 100])
def test_blocks_and_their_order_change_nothing(tmp_path: Path, patch_pixels: int) -> None:
    bricks = bricks_in_row(8, n_real=3, n_fake=3)
    one = [write_block(tmp_path / "a", "block-00000", bricks)]
    many = [
        write_block(tmp_path / "b", f"block-{i:05d}", bricks[3 * i : 3 * i + 3]) for i in range(3)
    ]
    expected = assigned(tmp_path, one, patch_pixels=patch_pixels)
    assert assigned(tmp_path, many[::-1], patch_pixels=patch_pixels) == expected


def test_overlaps_name_neighbours_of_the_other_part(tmp_path: Path) -> None:
    bricks = bricks_in_row(10, n_real=2, n_fake=2)  # each overlaps the next one by 100 pixels
    rows = assigned(tmp_path, [write_block(tmp_path, "block-00000", bricks)], test_fraction=0.4)
    part = {row["brick"]: row["part"] for row in rows}
    for i, row in enumerate(rows):
        beside = [bricks[j].name for j in (i - 1, i + 1) if 0 <= j < len(bricks)]
        expected = [name for name in beside if part[name] != row["part"]]
        assert row["overlaps"].split() == expected
    assert any(row["overlaps"] for row in rows)


def test_patches_partition_the_stamps(tmp_path: Path) -> None:
    index = write_block(tmp_path, "block-00000", bricks_in_row(2, n_real=40, n_fake=30))
    rows = assigned(tmp_path, [index], patch_pixels=100)
    assert sum(int(row["n_real"]) for row in rows) == 80
    assert sum(int(row["n_fake"]) for row in rows) == 60
    assert {row["group"].split("/")[1] for row in rows} == {
        f"{i}_{j}" for i in range(3) for j in range(3)
    }
    tests = {row["brick"] for row in rows if row["part"] == "test"}
    for row in rows:  # two bricks that overlap, each with patches in the training part
        other = {"1210p060": "1211p060", "1211p060": "1210p060"}[row["brick"]]
        crosses = row["part"] == "test" or other in tests
        assert row["overlaps"] == (other if crosses else "")


def test_a_single_group_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    index = write_block(tmp_path, "block-00000", bricks_in_row(1))
    with pytest.raises(
        InputError, match=r"one group only; expected two bricks or more, or obiwan.pat"
    ):
        assigned(tmp_path, [index])
    assert not (tmp_path / "membership.csv").exists()
    assert len(assigned(tmp_path, [index], patch_pixels=100, test_fraction=0.5)) >= 2


def test_the_test_part_has_both_classes(tmp_path: Path) -> None:
    bricks = bricks_in_row(9)
    bricks[:6] = [replace(brick, n_fake=0) for brick in bricks[:6]]
    rows = assigned(tmp_path, [write_block(tmp_path, "block-00000", bricks)], test_fraction=0.67)
    assert len(rows) == 9
    assert [row["n_fake"] for row in rows if row["part"] == "test"] == ["6", "6"]


def test_one_class_is_an_error(tmp_path: Path) -> None:
    bricks = [replace(brick, n_fake=0) for brick in bricks_in_row(4)]
    index = write_block(tmp_path, "block-00000", bricks)
    with pytest.raises(InputError, match="no group has stamps of both classes"):
        assigned(tmp_path, [index])


def test_a_brick_in_two_records_is_an_error(tmp_path: Path) -> None:
    bricks = bricks_in_row(3)
    indexes = [write_block(tmp_path, f"block-{i:05d}", bricks[i : i + 2]) for i in range(2)]
    with pytest.raises(InputError, match="record 1211p060: is in two block indexes"):
        assigned(tmp_path, indexes)


@pytest.mark.parametrize("name", ["n_real", "wcs"])
def test_a_record_of_another_stage_is_an_error(tmp_path: Path, name: str) -> None:
    index = write_block(tmp_path, "block-00000", bricks_in_row(3))
    index.write_text(index.read_text().replace(f'"{name}"', '"other"'))
    with pytest.raises(InputError, match=f"field {name}"):
        assigned(tmp_path, [index])


@pytest.mark.parametrize(
    ("column", "text", "match"),
    [
        ("part", "training", r"record 1, field part: is 'training'; expected train or test"),
        ("n_real", "many", r"record 1: cannot be read"),
        ("crval1", "", r"record 1: cannot be read"),
        ("overlaps", "0000p000", r"record 0000p000: has no row of a brick listed in overlaps"),
    ],
)
def test_an_invalid_table_is_an_error(tmp_path: Path, column: str, text: str, match: str) -> None:
    rows = assigned(tmp_path, [write_block(tmp_path, "block-00000", bricks_in_row(3))])
    rows[0][column] = text
    table = tmp_path / "spoilt.csv"
    with open(table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(InputError, match=match):
        read_table(table, ["1210p060"])


def shares_sky(a: Tan, b: Tan) -> bool:
    """Brute force: whether a pixel of image a, or of b, lies on the other image."""
    for one, other in ((a, b), (b, a)):
        grid = np.arange(-0.5, one.width, 1.0)
        x, y = other.pixel(*one.sky(*np.meshgrid(grid, grid)))
        with np.errstate(invalid="ignore"):
            if np.any((x > -0.5) & (x < other.width - 0.5) & (y > -0.5) & (y < other.height - 0.5)):
                return True
    return False


@pytest.mark.parametrize("dec", [0.0, 60.0, -89.9, 89.99])
@pytest.mark.parametrize("ra", [0.0, 200.0])
def test_overlap_is_found_anywhere_on_the_sphere(ra: float, dec: float) -> None:
    """Randomly rotated bricks around RA 0/360 and near the poles, against brute force."""
    rng = np.random.default_rng(7)
    width = 80 * 0.262 / 3600
    tans = []
    for _ in range(25):
        north = np.clip(dec + rng.uniform(-2, 2) * width, -90, 90)
        east = (ra + rng.uniform(-2, 2) * width / max(np.cos(np.radians(dec)), 1e-3)) % 360
        tans.append(tan_at(float(east), float(north), pixels=80, turn=rng.uniform(0, 90)))
    neighbours = Neighbours(tans)
    found = {True: 0, False: 0}
    for a in range(len(tans)):
        for b in range(a + 1, len(tans)):
            truth = shares_sky(tans[a], tans[b])
            listed = b in neighbours.near(a) and bool(images_touch([tans[a]], [tans[b]])[0])
            found[truth] += 1
            assert listed >= truth
            if listed and not truth:  # only what comes within the margin of a pixel
                assert shares_sky(replace_size(tans[a], 3), replace_size(tans[b], 3))
    assert min(found.values()) > 10


def replace_size(tan: Tan, more: int) -> Tan:
    """Return the brick with an image that is larger by n pixels on each side."""
    crpix = (tan.crpix[0] + more, tan.crpix[1] + more)
    return replace(tan, crpix=crpix, width=tan.width + 2 * more, height=tan.height + 2 * more)


def test_a_row_across_ra_zero_is_a_chain(tmp_path: Path) -> None:
    tans = row_of_bricks(6, ra=359.97, dec=30.0)
    neighbours = Neighbours(tans)
    for i in range(6):
        touching = [j for j in neighbours.near(i) if images_touch([tans[i]], [tans[j]])[0]]
        assert touching == [j for j in (i - 1, i + 1) if 0 <= j < 6]


def test_the_log_gives_the_number_of_test_groups(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "skyproof"):
        assigned(tmp_path, [write_block(tmp_path, "block-00000", bricks_in_row(5))])
    assert "1 of 5 groups are in the test part" in caplog.text


def test_bricks_far_apart_have_no_overlaps(tmp_path: Path) -> None:
    bricks = [Brick(f"{i:03d}0p060", tan_at(36.0 * i, 6.0), 2, 2) for i in range(10)]
    rows = assigned(tmp_path, [write_block(tmp_path, "block-00000", bricks)])
    assert {row["overlaps"] for row in rows} == {""}
