"""A small folder of stamps as written by obiwan.cutouts, with identifiable pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyproof.core import blocks
from skyproof.core.atomic import sha256_of
from skyproof.core.formats import write
from skyproof.obiwan.bricks.grid import PIXEL_SCALE
from skyproof.obiwan.stamps.geometry import HALF, STAMP
from skyproof.obiwan.stamps.reader import CLASSES
from skyproof.obiwan.stamps.writer import write_stamps
from skyproof.obiwan.survey import stamp_dtype
from skyproof.sky.tan import Tan, footprint_info


def tan_at(ra: float, dec: float, pixels: int = 300, turn: float = 0.0) -> Tan:
    """Return the WCS of a square brick; `turn` [deg] rotates its axes."""
    scale = PIXEL_SCALE / 3600
    cos, sin = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    middle = (pixels + 1) / 2
    cd = ((-cos, sin), (sin, cos))
    return Tan(ra=ra, dec=dec, crpix=(middle, middle), cd=cd, width=pixels, height=pixels)


def row_of_bricks(n: int, ra: float = 121.1, dec: float = 6.0, step: int = 200) -> list[Tan]:
    """Return bricks of 300 pixels in a row along the right ascension, `step` pixels apart."""
    spacing = step * PIXEL_SCALE / 3600 / np.cos(np.radians(dec))
    return [tan_at((ra + i * spacing) % 360, dec) for i in range(n)]


@dataclass
class Brick:
    """One brick to write: its projection and its number of stamps of each class."""

    name: str
    tan: Tan
    n_real: int
    n_fake: int
    bad: str = ""


def bricks_in_row(n: int, n_real: int = 6, n_fake: int = 6, **where: float) -> list[Brick]:
    """Return overlapping bricks with the given numbers of stamps."""
    tans = row_of_bricks(n, **where)  # type: ignore[arg-type]
    return [Brick(f"121{i}p060", tan, n_real, n_fake) for i, tan in enumerate(tans)]


def image_value(label: np.ndarray, number: np.ndarray, band: int) -> np.ndarray:
    """Return the pixel value of a source in a band, exact in float16 and different in each band."""
    return label * 1024.0 + number % 256 * 4.0 + band


def weight_value(band: int) -> float:
    """Return the inverse variance of a band."""
    return 100.0 * (band + 1)


def table_of(brick: Brick, label: int, bands: str) -> np.ndarray:
    """Return the table of a class: random positions by brick and class, identifiers from 0."""
    n = brick.n_fake if label else brick.n_real
    table = np.zeros(n, stamp_dtype(bands))
    rng = np.random.default_rng([label, *brick.name.encode()])
    edge = HALF + 1.0
    table["id"] = np.arange(n)
    table["brick"], table["rs"], table["label"] = brick.name.encode(), b"rs0", label
    table["x"] = rng.uniform(edge, brick.tan.width - edge, n)
    table["y"] = rng.uniform(edge, brick.tan.height - edge, n)
    table["ra"], table["dec"] = brick.tan.sky(table["x"], table["y"])
    return table


def write_block(root: Path, name: str, bricks: Iterable[Brick], bands: str = "g") -> Path:
    """Write the stamps of a block and its index `<root>/<name>.json`; return the path."""
    items = {}
    for brick in bricks:
        if brick.bad:
            items[brick.name] = {"info": {"bad": brick.bad}, "files": []}
            continue
        made = []
        for label, kind in enumerate(CLASSES):
            table = table_of(brick, label, bands)
            img = np.empty((len(table), STAMP, STAMP, len(bands)), np.float32)
            ivar = np.empty_like(img)
            for band in range(len(bands)):
                value = image_value(table["label"].astype(float), table["id"], band)
                img[..., band] = value[:, None, None]
                ivar[..., band] = weight_value(band)
            relative = f"{kind}/hdf5/{brick.name[:3]}/{brick.name}/img_ivar_{bands}.hdf5"
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            write_stamps(path, img, ivar, table, "array")
            made.append({"path": relative, "size": path.stat().st_size, "sha256": sha256_of(path)})
        info = footprint_info(brick.tan) | {"n_real": brick.n_real, "n_fake": brick.n_fake}
        items[brick.name] = {"info": info, "files": made}
    index = root / f"{name}.json"
    write.json(index, {"format": blocks.FORMAT, "items": items})
    return index
