"""What the stages after `cutouts` ask of stamp files: which there are, and their tables."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from skyproof.core.blocks import Item
from skyproof.core.errors import InputError

CLASSES = ("real", "fake")  # the place of a class is its label


def stamp_files(item: Item, kind: str) -> list[Path]:
    """Return the files of a brick's stamps of one class: one, or none.

    Stamps that reach over the edge of the image have a file of their own, which is not meant.
    """
    found = item.matching(f"{kind}/hdf5/*/{item.name}/img_ivar_*.hdf5")
    return [path for path in found if not path.stem.endswith("_onedge")]


def read_stamp_table(path: Path) -> np.ndarray:
    """Return the table of a stamp file, structured [n]; the pixels stay on disk."""
    try:
        with h5py.File(path, "r") as file:
            table = file["table"][()]
    except PermissionError:
        raise
    except (OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            path, f"has no readable table ({reason})", expected="a file of stamps"
        ) from None
    for name in ("id", "rs", "label", "x", "y"):
        if name not in (table.dtype.names or ()):
            raise InputError(path, "has no such column", field=name, expected="a table of stamps")
    return table
