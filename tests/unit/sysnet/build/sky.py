"""Small tables of a part of the sky, made directly, for tests of tables and folds."""

from __future__ import annotations

import numpy as np

from skyproof.sysnet.table import Table


def sky_table(nside: int = 16, n_features: int = 3, seed: int = 3) -> Table:
    """Return a table of the northern 70 % of the sky: counts, fractions, normal features."""
    rng = np.random.default_rng(seed)
    hpix = np.arange(int(0.7 * 12 * nside**2), dtype=np.int64)
    return Table(
        hpix=hpix,
        label=rng.poisson(8.0, len(hpix)).astype(float),
        fracgood=rng.uniform(0.3, 1.0, len(hpix)),
        features=rng.normal(size=(len(hpix), n_features)),
        names=tuple(f"template_{i}" for i in range(n_features)),
        nside=nside,
    )
