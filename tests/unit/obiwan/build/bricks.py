"""Tiny bricks in the survey's layout with identifiable pixels, and the stage run on them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from skyproof.core.formats import write
from skyproof.core.stage import Context
from skyproof.obiwan import cutouts, survey
from skyproof.obiwan.bricks.grid import brick_tan, survey_bricks
from skyproof.obiwan.options import Cutouts
from skyproof.obiwan.stamps.reader import read_stamps
from skyproof.sky.tan import Tan
from tests.conftest import skyproof


def brick_names(n: int) -> list[str]:
    """Return the names of the first `n` bricks of a synthetic survey."""
    return [brick.name for brick in survey_bricks(n)]


def synthetic_bricks(n: int, pixels: int) -> list[tuple[str, Tan]]:
    """Return name and projection of the first `n` bricks."""
    return [(brick.name, brick_tan(brick, pixels)) for brick in survey_bricks(n)]


PIXELS = 160
BRICK = "1211p060"
NAMES = brick_names(6)
SOURCES = [(40.3, 50.7), (80.0, 90.5), (120.2, 60.9), (100.1, 120.4), (5.0, 80.0), (158.7, 158.7)]
# x, y of both classes: the first four are inside, the last two at the edge.


def tan_of(brick: str) -> Tan:
    return dict(synthetic_bricks(len(NAMES), PIXELS))[brick]


def pixel_names(band: int, rs: int = 0) -> np.ndarray:
    """Values that identify band and pixel: 1e6 band + 1000 y + x, plus a realisation's quarter."""
    y, x = np.mgrid[:PIXELS, :PIXELS]
    return (1e6 * band + 1000 * y + x + 0.25 * rs).astype("f4")


def write_brick(
    root: Path,
    brick: str = BRICK,
    rs: str = "rs0",
    bands: str = "grz",
    real: list[tuple[float, float]] = SOURCES,
    fake: list[tuple[float, float]] = SOURCES,
) -> None:
    """Write one image of a brick; injected sources are 12 pixels (3.1 arcsec) from the real."""
    tan = tan_of(brick)
    for index, band in enumerate(bands):
        write_plane(root, "image", band, pixel_names(index, int(rs[2:] or 0)), brick, rs)
        ivar = np.full((PIXELS, PIXELS), 100.0 * (index + 1), "f4")
        write_plane(root, "invvar", band, ivar, brick, rs)
    fake = [(beside(x), y) for x, y in fake]
    places = [*real, *fake]
    x, y = (np.array(axis, float) for axis in zip(*places, strict=True)) if places else ([], [])
    ra, dec = tan.sky(x, y)
    n = len(places)
    measured: dict[str, np.ndarray] = {
        "objid": np.arange(n, dtype="i4")[::-1], "type": np.full(n, "EXP", "S4"),
        "ra": ra, "dec": dec, "bx": np.array(x, "f4"), "by": np.array(y, "f4"),
        "brick_primary": np.ones(n, bool),
        "shapeexp_r": np.full(n, 0.5, "f4"), "shapedev_r": np.zeros(n, "f4"),
    }  # fmt: skip
    simcat = {"id": 900 + np.arange(len(fake)), "ra": ra[len(real) :], "dec": dec[len(real) :]}
    simcat["rhalf"] = np.full(len(fake), 0.4, "f4")
    for band, mag in zip(bands, (22.3, 21.9, 21.2), strict=False):
        flux = np.full(n, 10 ** (0.4 * (22.5 - mag)), "f4")
        measured |= {f"flux_{band}": flux, f"flux_ivar_{band}": np.full(n, 100, "f4")}
        measured |= {f"mw_transmission_{band}": np.ones(n, "f4"), f"nobs_{band}": np.ones(n, "i2")}
        measured |= {f"psfsize_{band}": np.full(n, 1.3, "f4")}
        simcat |= {f"{band}flux": flux[len(real) :] * np.float32(1.1)}
    write_table(tractor(root, brick, rs), measured)
    write_table(survey.simcat_path(root, brick, rs), simcat)
    write_table(survey.ccds_path(root, brick, rs), {"expnum": np.array([1])})


def beside(x: float) -> float:
    return x - 12 if x >= 12 else x + 12


def tractor(root: Path, brick: str = BRICK, rs: str = "rs0") -> Path:
    """The path of the measured catalogue of a realisation."""
    return survey.realization_tractor_path(root, brick, rs)


def write_plane(root, kind, band, pixels, brick=BRICK, rs="rs0") -> Path:
    path = survey.image_path(root, brick, kind, band, rs)
    path.parent.mkdir(parents=True, exist_ok=True)
    cards = tan_of(brick).cards()
    write.fits_image(path, pixels, header=cards, compress="GZIP_2")
    return path


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write.fits_table(path, columns)


def listed(root: Path, *bricks: str) -> Path:
    path = root / "bricks.txt"
    path.write_text("# bricks\n" + "\n".join(bricks or [BRICK]) + "\n")
    return path


def run(
    root: Path, out: Path, bricks: Path | None = None, cache_key: str = "a", **options: object
) -> dict[str, dict]:
    """Run the stage in this process; return the items of the block index."""
    inputs = SimpleNamespace(bricks=bricks or listed(root), real=None, fake=None)
    if "real" in options:
        inputs.real = options.pop("real")
    out.mkdir(exist_ok=True)
    block_index = out / "block.json"
    context = Context(stage="obiwan.cutouts", cache_key=cache_key)
    cutouts.run(inputs, SimpleNamespace(cutouts=block_index), Cutouts(**options), context)
    return json.loads(block_index.read_text())["items"]


def read(out: Path, kind: str, suffix: str = "", brick: str = BRICK, bands: str = "grz"):
    return read_stamps(out / kind / "hdf5" / brick[:3] / brick / f"img_ivar_{bands}{suffix}.hdf5")


def command(root: Path, out: Path, *words: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    return skyproof(
        "obiwan.cutouts", "--in", f"bricks={root}/bricks.txt", "--out", f"cutouts={out}/block.json",
        *words, ranks=ranks,
    )  # fmt: skip
