"""Which features the models of each fold use: `selection.json`, as sysnet.select writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from skyproof.core.errors import InputError


def read_kept(path: Path, n_folds: int, n_features: int) -> np.ndarray:
    """Return which features each fold keeps, bool [n_folds, F] (InputError)."""
    keep = np.zeros((n_folds, n_features), bool)
    try:
        columns = json.loads(Path(path).read_text(encoding="utf-8"))["keep"]
        for fold in range(n_folds):
            kept = np.array(columns[str(fold)], np.int64)
            if kept.size == 0 or kept.min() < 0:
                raise IndexError(f"fold {fold} keeps {kept.tolist()}")
            keep[fold, kept] = True
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            path, f"does not name the features of each fold ({error})", field="keep",
            expected=f"columns from 0 to {n_features - 1} for the folds 0 to {n_folds - 1}",
        ) from None  # fmt: skip
    return keep
