"""Stage obiwan.cutouts: 64 x 64 stamps of real and injected sources, a file per class and brick."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core import blocks
from skyproof.core.errors import InputError
from skyproof.core.formats import read, write
from skyproof.obiwan import survey
from skyproof.obiwan.bricks.bricklist import read_brick_list
from skyproof.obiwan.bricks.grid import bricks_of_block
from skyproof.obiwan.catalogue import sources
from skyproof.obiwan.catalogue.sources import BrickImage
from skyproof.obiwan.stamps import reader
from skyproof.obiwan.stamps.geometry import STAMP
from skyproof.obiwan.stamps.reader import CLASSES
from skyproof.obiwan.stamps.writer import StampWriter
from skyproof.sky.stamps import centre_pixel, stamp_inside
from skyproof.sky.tan import Tan, footprint_info

if TYPE_CHECKING:
    from types import SimpleNamespace

    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Cutouts

# A brick with a larger fraction of broken pixels is bad input; up to it they are masked.
_MOST_BROKEN = 0.5
_BRICK_NAME = re.compile(r"[A-Za-z0-9_+-]{3,8}")


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Cutouts, context: Context
) -> None:
    """Cut the stamps of every brick of the block and write the block index.

    For each brick and class: `hdf5/<bri>/<brick>/img_ivar_<bands>.hdf5` (stamps entirely inside the
    image), `img_ivar_<bands>_onedge.hdf5` (stamps that extend beyond it, 0 outside),
    `sorted_ids.fits`, and with `jpeg` `jpeg_<bands>.hdf5`. A class without sources has empty
    arrays. Memory: the planes of one image, for any number of stamps.
    """
    default = inputs.bricks.parent
    folders = {"real": inputs.real or default, "fake": inputs.fake or default}

    def make(brick: str, files: blocks.ItemFiles) -> dict[str, Any]:
        images = images_of(brick, folders, options)
        parts = [choose_sources(image, brick, options) for image in images]
        broken = write_stamp_files(files, brick, parts, options)
        for name in CLASSES:
            _write_lists(files, brick, name, parts, options)
        info = footprint_info(parts[0].tan) | _counts(parts)
        return info | {"broken_pixels": broken}

    context.each(
        _bricks(inputs.bricks, options, context), make, outputs.cutouts, skip_bad=options.skip_bad
    )


def _bricks(path: Path, options: Cutouts, context: Context) -> list[str]:
    """Return the bricks of this block, from a block index or a list of the names of all bricks."""
    if path.suffix == ".json":
        names = []
        for item in blocks.read_index(path):
            if "bad" in item.info:
                context.log.warning("%s skipped, as before: %s", item.name, item.info["bad"])
            else:
                names.append(item.name)
    else:
        names = bricks_of_block(read_brick_list(path), options.block, options.block_size)
    for name in names:
        if not _BRICK_NAME.fullmatch(name):
            raise InputError(
                path, "is not a brick name", record=name, expected="a name such as 1211p060"
            )
    return names


def images_of(brick: str, folders: dict[str, Path], options: Cutouts) -> list[BrickImage]:
    """Return the images to cut, in the order of their rows in the files.

    Injected sources come from all realisations. Real sources come from one image, because all
    images show the same sky: the coadds of the release, or the first realisation, which gives both
    classes from one reduction.
    """
    found = sorted(survey.realizations(folders["fake"], brick)) or [""]
    if options.real_images == "release":
        injected = [BrickImage(folders["fake"], rs, ("fake",)) for rs in found]
        return [BrickImage(folders["real"], "", ("real",)), *injected]
    later = [BrickImage(folders["fake"], rs, ("fake",)) for rs in found[1:]]
    return [BrickImage(folders["fake"], found[0], CLASSES), *later]


@dataclass
class ImageSources:
    """The selected sources of one image, from its header and catalogues: class -> rows, counts."""

    image: BrickImage
    tan: Tan
    inside: dict[str, np.ndarray]  # tables (`survey.stamp_dtype`) of the stamps entirely inside
    edge: dict[str, np.ndarray]  # and of those that extend beyond the image
    counts: dict[str, Counter[str]]  # class -> reason -> number of sources removed


def choose_sources(image: BrickImage, brick: str, options: Cutouts) -> ImageSources:
    """Select the sources of an image. Reads its catalogues but no pixels."""
    path = survey.image_path(image.root, brick, "image", options.bands[0], image.rs)
    header = read.fits_header(path)
    tan = replace(Tan.from_header(header, path), width=header["NAXIS1"], height=header["NAXIS2"])
    part = ImageSources(image, tan, {}, {}, {name: Counter() for name in image.classes})
    for name, table in sources.tables(image, brick, tan, options, part.counts).items():
        centres = centre_pixel(table["x"], table["y"])
        inside = stamp_inside(*centres, shape=(tan.height, tan.width), size=STAMP)
        part.inside[name], part.edge[name] = table[inside], table[~inside]
    return part


def write_stamp_files(
    files: blocks.ItemFiles, brick: str, parts: Sequence[ImageSources], options: Cutouts
) -> int:
    """Write the stamps of a brick, image by image; return the number of broken pixels masked."""
    broken = 0
    with ExitStack() as stack:
        writers = {}
        for name in CLASSES:
            for edge, suffix in ((False, ""), (True, "_onedge")):
                relative = f"{_folder(name, brick)}/img_ivar_{options.bands}{suffix}.hdf5"
                path = stack.enter_context(files.write(relative))
                table = _joined(parts, name, edge)
                writers[name, edge] = stack.enter_context(
                    StampWriter(path, table, options.bands, options.layout)
                )
        for part in parts:
            planes, masked = read_planes(part, brick, options.bands)
            broken += masked
            for name in part.image.classes:
                writers[name, False].cut(planes, part.inside[name])
                writers[name, True].cut(planes, part.edge[name])
    return broken


def _folder(name: str, brick: str) -> str:
    return f"{name}/hdf5/{survey.brick_folder(brick)}/{brick}"


def _joined(parts: Sequence[ImageSources], name: str, edge: bool) -> np.ndarray:
    tables = [part.edge if edge else part.inside for part in parts]
    return np.concatenate([table[name] for table in tables if name in table])


def read_planes(part: ImageSources, brick: str, bands: str) -> tuple[dict[str, np.ndarray], int]:
    """Read each plane of an image once: kind -> float32 [band, ny, nx].

    Also return the number of broken pixels that were masked.
    """
    shape, broken = (part.tan.height, part.tan.width), 0
    planes = {kind: np.empty((len(bands), *shape), "f4") for kind in reader.KINDS}
    for number, band in enumerate(bands):
        paths = [
            survey.image_path(part.image.root, brick, kind, band, part.image.rs)
            for kind in ("image", "invvar")
        ]
        plane, ivar = (survey.read_plane(path, shape)[0] for path in paths)
        broken += mask_broken(plane, ivar, *paths)
        planes["img"][number], planes["ivar"][number] = plane, ivar
    return planes, broken


def mask_broken(plane: np.ndarray, ivar: np.ndarray, path: Path, path_ivar: Path) -> int:
    """Mask broken pixels in place: image 0 and inverse variance 0. Return their number.

    A pixel is broken if its inverse variance is not 0 and its image or inverse variance is not
    finite, or the latter is negative. Raise InputError if more than half of the image is broken, or
    if the inverse variance masks all of it.
    """
    exposed = ivar != 0  # NaN too
    if not exposed.any():
        raise InputError(path_ivar, "masks every pixel", expected="some inverse variance above 0")
    finite = np.isfinite(plane)
    broken = exposed & ~(finite & (ivar > 0) & np.isfinite(ivar))
    count = int(broken.sum())
    if count > _MOST_BROKEN * plane.size:
        raise InputError(
            path, f"{count} of {plane.size} exposed pixels are not finite or have negative weight",
            expected=f"at most {_MOST_BROKEN:.0%}",
        )  # fmt: skip
    ivar[broken] = 0
    plane[broken | ~finite] = 0
    return count


def _write_lists(
    files: blocks.ItemFiles, brick: str, name: str, parts: Sequence[ImageSources], options: Cutouts
) -> None:
    """Write the sources sorted by magnitude and, with `jpeg`, the colour stamps."""
    folder, bands = _folder(name, brick), options.bands
    with files.write(f"{folder}/sorted_ids.fits") as path:
        write.fits_table(path, _sorted_ids(_joined(parts, name, edge=False), bands))
    if options.jpeg:
        img, _, _ = reader.read_stamps(files.root / f"{folder}/img_ivar_{bands}.hdf5")
        with files.write(f"{folder}/jpeg_{bands}.hdf5") as path:
            write.hdf5(path, {"rgb": reader.rgb(img, bands)})


def _sorted_ids(table: np.ndarray, bands: str) -> dict[str, np.ndarray]:
    """Return the sources of a table by magnitude in the first band, unknown magnitudes last."""
    name = f"mag_{bands[0]}"
    order = np.argsort(table[name], kind="stable")
    return {column: table[column][order] for column in ("rs", "id", name)}


def _counts(parts: Sequence[ImageSources]) -> dict[str, Any]:
    """Return the counts of a brick for the block index, summed over its images."""
    info: dict[str, Any] = {}
    for name in CLASSES:
        info[f"n_{name}"] = len(_joined(parts, name, edge=False))
        info[f"n_onedge_{name}"] = len(_joined(parts, name, edge=True))
        removed = Counter[str]()
        for part in parts:
            removed.update(part.counts.get(name, {}))  # `+` would drop the zeros
        info[f"removed_{name}"] = dict(removed)
    return info
