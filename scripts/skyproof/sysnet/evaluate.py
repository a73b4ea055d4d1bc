"""Stage sysnet.evaluate: what the weights do, and whether that is right where the truth is known.

`metrics.json` (keys sorted; null where a figure cannot be had):

- region, n_pixels, n_superpixels, n_features, n_chains, nside, mean_density, galaxy (the label of
  one), coverage (of the sky)
- stack: what stack.json says; selection: spread of S and mean spread of the networks' S
- losses: model -> pnll, mse out of fold, `weights` being the selection function in use
- gains, network_gains: of the weights, of the network, over each model: loss -> value, error,
  better
- clustering: amplitude and slope of the power that the null test's mocks have
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

from skyproof.assess.page import Metric, nine_digits, rounded
from skyproof.core.formats import read, write
from skyproof.sysnet.mocks import null
from skyproof.sysnet.verdict import figures, merit, power, rule, skymap
from skyproof.sysnet.verdict.inputs import Sky, read_history, read_sky
from skyproof.sysnet.verdict.nulltest import Bins, NullTest

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Evaluate

_POWER_MOCKS = 100  # for the errors of C_l (A24)
_COMPARED = ("constant", "linear", "quadratic", "forest", "network")


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Evaluate, context: Context
) -> None:
    """Measure, judge, draw."""
    sky = read_sky(inputs)
    tuning, history = read.json(inputs.tuning, ["scans"]), read_history(inputs.history)
    spectra = measure_power(sky)
    clustering = null.fit_clustering(
        sky.grid, spectra["after"], sky.mean, sky.unit,
        lambda turn, mock: context.stream("clustering", turn, mock),
    )  # fmt: skip
    context.log.info("clustering: C_30 = %.3g, slope %.2f", clustering.amplitude, clustering.slope)
    chance = draw_mocks(sky, clustering, options.n_mocks, context)
    nulltest = judge_templates(sky, chance.test)
    metrics = measure(sky, spectra, nulltest, clustering, options, context)
    metrics["power"]["bands"] = band_table(spectra, chance.power)
    write.json(outputs.metrics, rounded(metrics, nine_digits))
    write.json(outputs.nulltest, rounded(nulltest, nine_digits))
    Path(outputs.verdict).write_text(rule.page(metrics, nulltest), encoding="utf-8")
    context.log.info("%s", metrics["statement"])
    draw(sky, spectra, chance, nulltest, history, tuning, outputs)


def measure_power(sky: Sky) -> dict[str, power.Spectrum]:
    """Return the spectra of the galaxies before, after, and weighted by the truth if known."""
    weights: dict[str, np.ndarray | float] = {"before": 1.0, "after": 1 / sky.selection}
    if sky.contamination is not None:
        weights["truth"] = 1 / sky.contamination
    return {
        name: power.spectrum(sky.grid, sky.label, sky.unit, weight)
        for name, weight in weights.items()
    }


@dataclass(frozen=True)
class Chance:
    """What mock skies show: the null test, and their band powers without noise [mocks, bands]."""

    test: NullTest
    power: np.ndarray


def draw_mocks(sky: Sky, clustering: null.Clustering, n_mocks: int, context: Context) -> Chance:
    """Observe mock skies in the templates' bins and in harmonic space."""
    bins = Bins.of(sky.features, sky.fracgood)
    progress = context.progress(n_mocks, "mock skies")
    contrasts, powers = [], []
    skies = null.many(sky.grid, clustering, n_mocks, lambda number: context.stream("mock", number))
    for number, label in enumerate(skies):
        contrasts.append(bins.contrast(label))
        if number < _POWER_MOCKS:
            powers.append(power.in_bands(power.spectrum(sky.grid, label, sky.unit).signal))
        progress.advance()
    progress.close()
    return Chance(NullTest(bins, np.array(contrasts)), np.array(powers))


def judge_templates(sky: Sky, test: NullTest) -> Metric:
    """Return nulltest.json; keys as in the module's docstring."""
    bins, label = test.bins, sky.label
    contrasts = {"before": bins.contrast(label), "after": bins.contrast(label / sky.selection)}
    value, error = bins.centres(sky.features), test.error
    templates = {}
    for number, name in enumerate(sky.table.names):
        entry: Metric = {"bins": [
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
    sky: Sky,
    spectra: dict[str, power.Spectrum],
    nulltest: Metric,
    clustering: null.Clustering,
    options: Evaluate,
    context: Context,
) -> Metric:
    """Return all figures of merit; keys as in the module's docstring."""
    models = {**sky.predictions.models, "weights": sky.weighted_density}
    losses = merit.losses_of(models, sky.label, sky.fracgood)

    def differences_from(better: str) -> Metric:
        return {
            model: {
                loss: merit.loss_difference(
                    by_model[model], by_model[better], sky.group, draws=options.n_bootstrap,
                    stream=context.stream("bootstrap"),
                ) for loss, by_model in losses.items()
            } for model in _COMPARED if model != better
        }  # fmt: skip

    metrics: Metric = {
        "region": options.region,
        "n_pixels": len(sky.rows),
        "n_superpixels": len(np.unique(sky.group)),
        "n_features": len(sky.table.names),
        "n_chains": sky.predictions.chains.shape[1],
        "nside": sky.table.nside,
        "mean_density": sky.mean,
        "galaxy": sky.unit,
        "coverage": len(sky.rows) / (12 * sky.table.nside**2),
        "stack": sky.stack,
        "selection": {
            "spread": float(sky.selection.std()),
            "least": float(sky.selection.min()),
            "greatest": float(sky.selection.max()),
            "of_networks": float(np.sqrt(np.mean(sky.spread**2))),
        },
        "losses": merit.mean_losses(losses),
        "gains": differences_from("weights"),
        "network_gains": differences_from("network"),
        "clustering": {"amplitude": clustering.amplitude, "slope": clustering.slope},
        "nulltest": {name: nulltest[name] for name in ("before", "after", "n_mocks")},
        "power": compare_power(sky, spectra),
        "recovery": None,
        "outliers": merit.outliers(sky.table, sky.rows, sky.weighted_density, sky.unit),
    }
    if sky.contamination is not None:
        metrics["recovery"] = {
            "weights": merit.recovery(sky.selection, sky.contamination),
            **{
                name: merit.recovery(sky.selection_of(name), sky.contamination)
                for name in _COMPARED
            },
        }
    metrics["verdict"] = rule.judge(metrics)
    metrics["statement"] = rule.statement(metrics)
    return metrics


def compare_power(sky: Sky, spectra: dict[str, power.Spectrum]) -> Metric:
    """Return what the weights do to the power, and where the truth is known each model's too."""
    truth = spectra.get("truth")
    found = power.compared(spectra["before"], spectra["after"], truth)
    if truth is not None:
        found["models"] = {
            name: power.compared(
                spectra["before"],
                power.spectrum(sky.grid, sky.label, sky.unit, 1 / sky.selection_of(name)),
                truth,
            )
            for name in _COMPARED
        }
    return found


def band_table(spectra: dict[str, power.Spectrum], mocks: np.ndarray) -> list[Metric]:
    """Return each band's power without noise, and its error by mock skies [mocks, bands]."""
    found = {name: power.in_bands(spectrum.signal) for name, spectrum in spectra.items()}
    error = mocks.std(axis=0, ddof=1)
    return [
        {"from": first, "to": last, "error": error[i],
         **{name: values[i] for name, values in found.items()}}
        for i, (first, last) in enumerate(power.bands(len(spectra["before"].total) - 1))
    ]  # fmt: skip


def draw(
    sky: Sky,
    spectra: dict[str, power.Spectrum],
    chance: Chance,
    nulltest: Metric,
    history: dict[str, np.ndarray],
    tuning: Metric,
    outputs: SimpleNamespace,
) -> None:
    """Draw the five figures."""
    observed = sky.label / sky.fracgood / sky.mean
    panels = {
        "observed density": observed,
        "selection function": sky.selection,
        "corrected density": observed / sky.selection,
    }
    if sky.contamination is not None:
        panels["planted contamination"] = sky.contamination / sky.contamination.mean()
    hpix = sky.table.hpix[sky.rows]
    with figures.style():
        write.figure(outputs.maps, skymap.maps_figure(panels, hpix, sky.fracgood, sky.table))
        write.figure(outputs.templates, figures.templates_figure(nulltest))
        write.figure(outputs.power, figures.power_figure(spectra, chance.power))
        write.figure(outputs.curves, figures.curves_figure(history))
        write.figure(outputs.scan, figures.scan_figure(tuning))
