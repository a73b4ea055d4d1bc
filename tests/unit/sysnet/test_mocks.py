"""Mock skies through the whole regression, in memory: s20 to s22 at a small size.

6,244 pixels at nside 32, 18 templates, density 20, two chains, 30 epochs: a fifth of what
`benchmarks/sysnet_mocks.py` takes. Thresholds stand beside what was measured.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from skyproof.sysnet.api import regress
from skyproof.sysnet.mock import make_mock
from skyproof.sysnet.options import Mock, Split, Stack, Train
from skyproof.sysnet.verdict import power
from skyproof.sysnet.verdict.merit import recovery
from tests.unit.sysnet.build.evaluated import make_sky, products_of, write_sky

TRAIN = Train(n_chains=2, n_epochs=30)


@functools.cache
def judged(kind: str, realisation: int = 0, scheme: str = "spatial") -> dict[str, dict]:
    """Return the effect of each model's weights on a mock sky; `weights` are the default ones."""
    table, survey, _ = make_mock(Mock(contamination=kind, realisation=realisation))
    found = regress(table, split=Split(fold_scheme=scheme), train=TRAIN)
    grid = power.Grid.of(table, np.arange(len(table)))
    before = power.spectrum(grid, table.label, 1.0)
    truth = power.spectrum(grid, table.label, 1.0, 1 / survey.contamination)
    selections = {name: np.clip(density / density.mean(), 0.5, 2)
                  for name, density in found.predictions.models.items()}  # fmt: skip
    selections["weights"] = found.selection
    return {
        name: {
            **recovery(selection, survey.contamination),
            **power.compared(
                before, power.spectrum(grid, table.label, 1.0, 1 / selection), truth
            ),
            "factor": found.stacked.shrinkage.factor,
        }
        for name, selection in selections.items()
    }  # fmt: skip


@pytest.mark.slow
def test_s20_row_folds_erase_clustering_that_the_default_keeps():
    """Nothing is planted. Power at l < 30 that is left, two skies.

    Measured: the original's way (network, random rows) 0.70, 0.63; the default (spatial folds,
    stack, shrinkage) 1.00, 0.93; the network alone in spatial folds 0.89, 0.90.
    """
    rows = [judged("none", sky, "rows85")["network"]["kept_low"] for sky in (0, 1)]
    default = [judged("none", sky)["weights"] for sky in (0, 1)]
    assert max(rows) < 0.8
    assert min(sky["kept_low"] for sky in default) > 0.88
    for sky in default:
        assert 0.95 < sky["kept_high"] < 1.05  # measured 1.00, 1.02
        assert sky["error"] < 0.045  # measured 0.001, 0.031; the network alone 0.12


@pytest.mark.slow
def test_s21_a_linear_contamination_is_recovered():
    """Measured: linear 0.922, error 0.43 of the planted; the default 0.900, 0.51.

    The goal of spec 1.10 (0.95, 0.35) is for 25,000 pixels; see the benchmark.
    """
    found = judged("linear")
    assert max(found[name]["correlation"] for name in ("linear", "weights")) > 0.9
    assert min(found[name]["share"] for name in ("linear", "weights")) < 0.5
    assert found["weights"]["correlation"] > 0.87
    assert found["weights"]["bias"] < 0.55  # measured 0.41: of the power's bias, l < 50
    assert found["weights"]["factor"] > 0.8


@pytest.mark.slow
def test_s22_networks_beat_the_quadratic_on_a_nonlinear_contamination():
    """Measured, two skies: correlation network 0.52, 0.51; quadratic 0.49, 0.49;
    error of the default 0.093, 0.093; linear 0.097, 0.096; quadratic 0.136, 0.130."""
    for sky in (0, 1):
        found = judged("nonlinear", sky)
        assert found["network"]["correlation"] > found["quadratic"]["correlation"]
        assert found["network"]["error"] < found["quadratic"]["error"]
        for name in ("constant", "linear", "quadratic", "network"):
            assert found["weights"]["error"] < found[name]["error"]
            assert found["weights"]["correlation"] > (found[name]["correlation"] or 0)


def test_in_memory_and_through_files_is_the_same(tmp_path):
    """`regress` gives the selection function of the stage, to the byte."""
    sky = make_sky("linear", nside=16)
    split = Split(nside_group=4)
    train = Train(n_chains=2, n_epochs=2, batch=256, structure=(3, 6))
    found = regress(sky.table, split=split, train=train, stack=Stack(n_mocks=5))
    chains = np.full((len(sky.table), 2), np.nan)
    chains[found.predictions.rows] = found.predictions.chains
    files = write_sky(tmp_path, sky, chains, seed=Stack().seed, n_mocks=5)
    selection = products_of(files.selection)["SELECTION"]
    assert selection.tobytes() == found.selection.tobytes()
