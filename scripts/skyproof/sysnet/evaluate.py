"""Stage sysnet.evaluate: test the weights on the data, and against the truth where it is known.

`metrics.json` (keys sorted; null where a value is not defined):

- region, n_pixels, n_superpixels, n_features, n_chains, nside, mean_density, galaxy (the label of
  one galaxy), coverage (fraction of the sky)
- stack: content of stack.json; selection: standard deviation, minimum and maximum of S, and rms of
  its standard deviation over the networks
- losses: model -> pnll, mse out of fold; model `weights` is the selection function in use
- gains, network_gains (names in the file): loss differences, each model's loss minus that of the
  weights, of the network: loss -> value, error, better
- clustering: amplitude and slope of the power spectrum of the null test's mocks
- nulltest: n_mocks; before, after: chi_square (sum over templates), p_value, worst (template),
  worst_p_value (its p-value times their number)
- power: `power.compared`; bands: from, to, before, after, truth, error; models: `power.compared` of
  each model, where the truth is known
- recovery: model -> `merit.recovery`, or null
- outliers: `merit.outliers`
- verdict, statement

`nulltest.json`: for each template its bins (from, to, value, before, after, error) and chi_square,
bins, p_value before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from skyproof.assess.page import Metrics, nine_digits, rounded
from skyproof.core.formats import write
from skyproof.sysnet.mocks import null
from skyproof.sysnet.verdict import figures, merit, power, rule, skymap
from skyproof.sysnet.verdict.inputs import (
    EvaluationInputs,
    read_history,
    read_inputs,
    read_tuning_scans,
)
from skyproof.sysnet.verdict.nulltest import Bins, NullTest

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Evaluate

_POWER_MOCKS = 100  # for the errors of C_l (A24)
_COMPARED = ("constant", "linear", "quadratic", "forest", "network")


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Evaluate, context: Context
) -> None:
    """Compute the figures of merit and the verdict, and draw the figures."""
    data = read_inputs(inputs)
    tuning, history = read_tuning_scans(inputs.tuning), read_history(inputs.history)
    spectra = measure_power(data)
    clustering = null.fit_clustering(
        data.grid, spectra["after"], data.mean, data.unit,
        lambda turn, mock: context.stream("clustering", turn, mock),
    )  # fmt: skip
    context.log.info("clustering: C_30 = %.3g, slope %.2f", clustering.amplitude, clustering.slope)
    mocks = draw_mocks(data, clustering, options.n_mocks, context)
    nulltest = judge_templates(data, mocks.test)
    metrics = measure(data, spectra, nulltest, clustering, options, context)
    metrics["power"]["bands"] = band_table(spectra, mocks.power)
    write.json(outputs.metrics, rounded(metrics, nine_digits))
    write.json(outputs.nulltest, rounded(nulltest, nine_digits))
    Path(outputs.verdict).write_text(rule.page(metrics, nulltest), encoding="utf-8")
    context.log.info("%s", metrics["statement"])
    draw(data, spectra, mocks, nulltest, history, tuning, outputs)


def measure_power(data: EvaluationInputs) -> dict[str, power.Spectrum]:
    """Return the spectra of the galaxies before, after, and weighted by the truth if known."""
    weights: dict[str, np.ndarray | float] = {"before": 1.0, "after": 1 / data.selection}
    if data.contamination is not None:
        weights["truth"] = 1 / data.contamination
    return {
        name: power.spectrum(data.grid, data.label, data.unit, weight)
        for name, weight in weights.items()
    }


@dataclass(frozen=True)
class MockResults:
    """Results on mock skies: the null test, and band powers without noise [mocks, bands]."""

    test: NullTest
    power: np.ndarray


def draw_mocks(
    data: EvaluationInputs, clustering: null.Clustering, n_mocks: int, context: Context
) -> MockResults:
    """Measure mock skies in the bins of the templates and in harmonic space."""
    bins = Bins.of(data.features, data.fracgood)
    progress = context.progress(n_mocks, "mock skies")
    contrasts, powers = [], []
    skies = null.mock_skies(
        data.grid, clustering, n_mocks, lambda number: context.stream("mock", number)
    )
    for number, label in enumerate(skies):
        contrasts.append(bins.density_contrast(label))
        if number < _POWER_MOCKS:
            powers.append(power.in_bands(power.spectrum(data.grid, label, data.unit).signal))
        progress.advance()
    progress.close()
    return MockResults(NullTest(bins, np.array(contrasts)), np.array(powers))


def judge_templates(data: EvaluationInputs, test: NullTest) -> Metrics:
    """Return the content of nulltest.json; keys as in the module docstring."""
    bins, label = test.bins, data.label
    contrasts = {
        "before": bins.density_contrast(label),
        "after": bins.density_contrast(label / data.selection),
    }
    value, error = bins.centres(data.features), test.error
    templates = {}
    for number, name in enumerate(data.table.names):
        entry: Metrics = {"bins": [
            {"from": bins.low[i], "to": bins.high[i], "value": value[i], "error": error[i],
             **{when: contrast[i] for when, contrast in contrasts.items()}}
            for i in np.flatnonzero(bins.template == number)
        ]}  # fmt: skip
        for when, contrast in contrasts.items():
            chi_square, n_bins, p_value = test.chi_square(contrast, number)
            entry[when] = {"chi_square": chi_square, "n_bins": n_bins, "p_value": p_value}
        templates[name] = entry
    whole = {}
    for when, contrast in contrasts.items():
        chi_square, p_value = test.of_all(contrast)
        worst = min(templates, key=lambda name: templates[name][when]["p_value"])
        least = min(1.0, len(templates) * templates[worst][when]["p_value"])
        whole[when] = {"chi_square": chi_square, "p_value": p_value, "worst": worst,
                       "worst_p_value": least}  # fmt: skip
    return {"n_mocks": len(test.mocks), "n_bins": len(value), "templates": templates, **whole}


def measure(
    data: EvaluationInputs,
    spectra: dict[str, power.Spectrum],
    nulltest: Metrics,
    clustering: null.Clustering,
    options: Evaluate,
    context: Context,
) -> Metrics:
    """Return all figures of merit; keys as in the module docstring."""
    models = {**data.predictions.models, "weights": data.weighted_density}
    losses = merit.losses_of(models, data.label, data.fracgood)

    def differences_from(better: str) -> Metrics:
        return {
            model: {
                loss: merit.loss_difference(
                    by_model[model], by_model[better], data.group, draws=options.n_bootstrap,
                    stream=context.stream("bootstrap"),
                ) for loss, by_model in losses.items()
            } for model in _COMPARED if model != better
        }  # fmt: skip

    metrics: Metrics = {
        "region": options.region,
        "n_pixels": len(data.rows),
        "n_superpixels": len(np.unique(data.group)),
        "n_features": len(data.table.names),
        "n_chains": data.predictions.chains.shape[1],
        "nside": data.table.nside,
        "mean_density": data.mean,
        "galaxy": data.unit,
        "coverage": len(data.rows) / (12 * data.table.nside**2),
        "stack": data.stack,
        "selection": {
            "spread": float(data.selection.std()),
            "least": float(data.selection.min()),
            "greatest": float(data.selection.max()),
            "of_networks": float(np.sqrt(np.mean(data.spread**2))),
        },
        "losses": merit.mean_losses(losses),
        "gains": differences_from("weights"),
        "network_gains": differences_from("network"),
        "clustering": {"amplitude": clustering.amplitude, "slope": clustering.slope},
        "nulltest": {name: nulltest[name] for name in ("before", "after", "n_mocks")},
        "power": compare_power(data, spectra),
        "recovery": None,
        "outliers": merit.outliers(data.table, data.rows, data.weighted_density, data.unit),
    }
    if data.contamination is not None:
        metrics["recovery"] = {
            "weights": merit.recovery(data.selection, data.contamination),
            **{
                name: merit.recovery(data.selection_of(name), data.contamination)
                for name in _COMPARED
            },
        }
    metrics["verdict"] = rule.judge(metrics)
    metrics["statement"] = rule.statement(metrics)
    return metrics


def compare_power(data: EvaluationInputs, spectra: dict[str, power.Spectrum]) -> Metrics:
    """Return what the weights do to the power, and where the truth is known each model's too."""
    truth = spectra.get("truth")
    found = power.compared(spectra["before"], spectra["after"], truth)
    if truth is not None:
        found["models"] = {
            name: power.compared(
                spectra["before"],
                power.spectrum(data.grid, data.label, data.unit, 1 / data.selection_of(name)),
                truth,
            )
            for name in _COMPARED
        }
    return found


def band_table(spectra: dict[str, power.Spectrum], mocks: np.ndarray) -> list[Metrics]:
    """Return the power of each band without noise, and its error from mocks [mocks, bands]."""
    found = {name: power.in_bands(spectrum.signal) for name, spectrum in spectra.items()}
    error = mocks.std(axis=0, ddof=1)
    return [
        {"from": first, "to": last, "error": error[i],
         **{name: values[i] for name, values in found.items()}}
        for i, (first, last) in enumerate(power.bands(len(spectra["before"].total) - 1))
    ]  # fmt: skip


def draw(
    data: EvaluationInputs,
    spectra: dict[str, power.Spectrum],
    mocks: MockResults,
    nulltest: Metrics,
    history: dict[str, np.ndarray],
    tuning: Metrics,
    outputs: SimpleNamespace,
) -> None:
    """Draw the five figures."""
    observed = data.label / data.fracgood / data.mean
    panels = {
        "observed density": observed,
        "selection function": data.selection,
        "corrected density": observed / data.selection,
    }
    if data.contamination is not None:
        panels["planted contamination"] = data.contamination / data.contamination.mean()
    hpix = data.table.hpix[data.rows]
    with figures.style():
        write.figure(outputs.maps, skymap.maps_figure(panels, hpix, data.fracgood, data.table))
        write.figure(outputs.templates, figures.templates_figure(nulltest))
        write.figure(outputs.power, figures.power_figure(spectra, mocks.power))
        write.figure(outputs.curves, figures.curves_figure(history))
        write.figure(outputs.scan, figures.scan_figure(tuning))
