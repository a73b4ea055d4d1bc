"""Writer of stamp files: collects the stamps of a brick and writes them block by block."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from skyproof.core.formats import write
from skyproof.obiwan.stamps.geometry import STAMP
from skyproof.obiwan.stamps.reader import KINDS, bands_of, group_names
from skyproof.sky.cutouts import gather, gather_edge
from skyproof.sky.stamps import centre_pixel, stamp_inside

# Stamps in memory at a time, few enough to stay in the CPU cache until they are written. 32 is the
# fastest of 8, 16, 32 and 64.
BLOCK = 32


def typical(stamps: np.ndarray) -> np.ndarray:
    """Return the median of every fourth pixel each way, [n, band], of stamps [n, 64, 64, band].

    Weights vary slowly, so that 256 pixels are sufficient; sorting 4096 pixels would take longer
    than cutting the stamp.
    """
    few = stamps[:, ::4, ::4]
    few = np.moveaxis(few, -1, 1).reshape(len(stamps), stamps.shape[-1], STAMP**2 // 16)
    middle = STAMP**2 // 32
    # numpy's median partitions for two middle elements, which is slow; for one it is vectorised.
    parted = np.partition(few, middle, axis=-1)
    return (parted[..., :middle].max(axis=-1) + parted[..., middle]) / 2


class StampWriter:
    """Writes a stamp file block by block, with one block of stamps in memory.

    `table` [n] (`survey.stamp_dtype`) is given at the start; its `ivar_*` are set when stamps are
    added. Layout `array`: datasets `img`, `ivar` [n, 64, 64, band], `table`. Layout `original`:
    `table`, and for each source `<id>/img` and `<id>/ivar` [64, 64, band]; with several
    realisations `<rs>-<id>/...`, because identifiers are unique only within one.
    """

    def __init__(self, path: str | Path, table: np.ndarray, bands: str, layout: str) -> None:
        self._table, self._bands, self._next = table, bands, 0
        self._groups = None if layout == "array" else group_names(table)
        stamp = (STAMP, STAMP, len(bands))
        datasets: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "table": ((len(table),), table.dtype)
        }
        for kind in KINDS:
            if self._groups is None:
                datasets[kind] = ((len(table), *stamp), np.dtype("f4"))
            for group in self._groups or []:
                datasets[f"{group}/{kind}"] = (stamp, np.dtype("f4"))
        self._stack = ExitStack()
        self._file = self._stack.enter_context(write.filling_hdf5(path, datasets))
        self._rows = {kind: write.RowWriter(self._file[kind]) for kind in KINDS if kind in datasets}

    def __enter__(self) -> StampWriter:
        return self

    def cut(self, planes: Mapping[str, np.ndarray], table: np.ndarray) -> None:
        """Cut the stamps of the next rows from planes, kind -> [band, ny, nx], and add them.

        `table` is these rows, either all entirely inside the image or all at its edge.
        """
        cx, cy = centre_pixel(table["x"], table["y"])
        inside = bool(stamp_inside(cx, cy, planes["img"].shape[1:], STAMP).all())
        room = {
            kind: np.empty((min(BLOCK, len(cx)), STAMP, STAMP, len(self._bands)), "f4")
            for kind in KINDS
        }
        for start in range(0, len(cx), BLOCK):
            rows = slice(start, start + BLOCK)
            block = {kind: stamps[: len(cx[rows])] for kind, stamps in room.items()}
            for kind, stamps in block.items():
                if inside:
                    gather(planes[kind], cx[rows], cy[rows], stamps)
                else:  # 0, because a NaN would spread in a network; inverse variance 0 marks it
                    gather_edge(planes[kind], cx[rows], cy[rows], stamps, fill=0)
            self.add(block["img"], block["ivar"])

    def add(self, img: np.ndarray, ivar: np.ndarray) -> None:
        """Write the next stamps, img and ivar [k, 64, 64, band]."""
        rows = slice(self._next, self._next + len(img))
        self._next = rows.stop
        for band, median in zip(self._bands, typical(ivar).T, strict=True):
            self._table[f"ivar_{band}"][rows] = median
        for kind, stamps in (("img", img), ("ivar", ivar)):
            if self._groups is None:
                self._rows[kind].write(rows.start, stamps)
                continue
            for group, stamp in zip(self._groups[rows], stamps, strict=True):
                self._file[f"{group}/{kind}"][...] = stamp

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            if kind is None:
                if self._next != len(self._table):
                    raise ValueError(f"{self._next} stamps for {len(self._table)} rows")
                self._file["table"][...] = self._table


def write_stamps(
    path: str | Path, img: np.ndarray, ivar: np.ndarray, table: np.ndarray, layout: str
) -> None:
    """Write img, ivar [n, 64, 64, band] and the table [n] to a file, as `StampWriter` does.

    `ivar_*` of the table are computed from `ivar` in the file; `table` is not changed.
    """
    with StampWriter(path, table.copy(), bands_of(table), layout) as writer:
        writer.add(img, ivar)
