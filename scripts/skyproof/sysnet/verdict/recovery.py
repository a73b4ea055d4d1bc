"""How near a selection function comes to the planted one, where that is known (a mock)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyproof.core.errors import InputError
from skyproof.sysnet.table import Table


def read_contamination(path: Path, table: Table) -> np.ndarray:
    """Return the planted contamination F [n] of the rows of a mock's table."""
    import fitsio

    try:
        data = fitsio.read(str(path), ext=1)
        hpix, contamination = data["hpix"], data["contamination"].astype("f8")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(path, f"cannot be read ({error})", expected="truth of a mock") from None
    if not np.array_equal(hpix, table.hpix):
        raise InputError(path, "has other pixels than the table", field="hpix")
    return contamination


def recovery(selection: np.ndarray, contamination: np.ndarray) -> dict[str, float | None]:
    """Compare S [m] with F [m], both over their means (spec 1.10, check 1).

    correlation of S and F (None without contamination); error: rms of S/F - 1; planted: rms of
    F - 1, about the error of no weights at all; share: error over planted.
    """
    found, true = selection / selection.mean(), contamination / contamination.mean()
    error = float(np.sqrt(np.mean((found / true - 1) ** 2)))
    planted = float(np.sqrt(np.mean((true - 1) ** 2)))
    clean = np.ptp(true) < 1e-9 or np.ptp(found) == 0
    return {
        "correlation": None if clean else float(np.corrcoef(found, true)[0, 1]),
        "error": error,
        "planted": planted,
        "share": error / planted if planted > 1e-9 else None,
    }
