"""The verdict on a region: one rule, and the sentences that state it.

The density *correlates* with the templates where the null test's p-value over all of them, or that
of the worst one times their number (Bonferroni), is below 0.01.

1. No correlation, before and after weighting: `clean`.
2. Correlation before weighting and not after: `corrected`.
3. Correlation after weighting: `left`.

The page also gives the difference in out-of-fold loss between the weights and a constant, with its
error over superpixels.
"""

from __future__ import annotations

from skyproof.assess.page import Metrics, caution_lines, headline

LEVEL = 0.01


_WORDS = {
    "clean": "the density correlates with no template beyond chance",
    "corrected": "the density correlates with the templates before weighting and not after",
    "left": "the density still correlates with the templates after weighting",
}


def judge(metrics: Metrics) -> str:
    """Return the verdict's name, by the rule above."""
    if correlates(metrics["nulltest"]["after"]):
        return "left"
    return "corrected" if correlates(metrics["nulltest"]["before"]) else "clean"


def correlates(found: Metrics) -> bool:
    """Return whether the density correlates with the templates beyond chance."""
    return min(found["p_value"], found["worst_p_value"]) < LEVEL


def statement(metrics: Metrics) -> str:
    """Return the verdict in one sentence with its figures."""
    test = metrics["nulltest"]
    text = (
        f"{_WORDS[metrics['verdict']]}: null test p {ranked(test, 'before')} before, "
        f"{ranked(test, 'after')} after{_worst(test['after'])}; "
        f"out-of-fold loss lower by {_gain(metrics, 'constant')} than that of a constant, "
        f"by {_gain(metrics, 'linear')} than that of a linear fit"
    )
    if metrics["recovery"]:
        found = metrics["recovery"]["weights"]
        if found["correlation"] is not None:
            text += (
                f"; correlation with the planted contamination {found['correlation']:.3f}, "
                f"rms error {found['error']:.3f} of {found['planted']:.3f} rms planted"
            )
        else:
            text += f"; nothing was planted; rms error of the weights {found['error']:.3f}"
    return text


def page(metrics: Metrics, nulltest: Metrics) -> str:
    """Return the page `verdict.md`: the statement, its evidence, and its cautions."""
    text = statement(metrics)
    lines = [
        f"# Imaging systematics: {metrics['region'] or 'region'}",
        "",
        headline(text),
        "",
        f"{metrics['n_pixels']} pixels at nside {metrics['nside']} in {metrics['n_superpixels']} "
        f"superpixels, {metrics['n_features']} templates, {metrics['n_chains']} networks a fold.",
        "",
        *(f"- {line}" for line in _findings(metrics, nulltest)),
        "",
        *_loss_table(metrics),
    ]
    if metrics["recovery"]:
        lines += ["", *_truth_table(metrics)]
    lines += caution_lines(_cautions(metrics, nulltest))
    lines += [
        "",
        "Loss: negative Poisson log-likelihood without its constant term, mean over pixels. Models "
        "that predict a pixel were not fitted on its superpixel; errors resample superpixels. "
        f"Null test: chi² of the density in {nulltest['n_bins']} bins against "
        f"{nulltest['n_mocks']} mock skies with the clustering of the corrected data.",
    ]
    return "\n".join(lines) + "\n"


def _findings(metrics: Metrics, nulltest: Metrics) -> list[str]:
    stack, selection = metrics["stack"], metrics["selection"]
    shares = ", ".join(f"{name} {value:.2f}" for name, value in stack["mean_weights"].items())
    lines = [
        f"Selection function S: {stack['use']} of {shares} (mean over folds). S - 1 is multiplied "
        f"by {stack['factor']:.2f}: its standard deviation is {stack['spread']:.3f}, and skies "
        f"without contamination give {stack['chance']:.3f}.",
        f"Delivered S: standard deviation {selection['spread']:.3f}, from "
        f"{selection['least']:.2f} to {selection['greatest']:.2f}; between networks "
        f"{selection['of_networks']:.3f}.",
    ]
    worst = sorted(nulltest["templates"].items(), key=lambda e: -e[1]["before"]["chi_square"])[:3]
    listed = "; ".join(
        f"{name} χ² {entry['before']['chi_square']:.0f} → {entry['after']['chi_square']:.0f} "
        f"(of {entry['after']['n_bins']} bins, p {_p(entry['before'])} → {_p(entry['after'])})"
        for name, entry in worst
    )
    lines.append(f"Templates with the largest χ² before weighting: {listed}.")
    power = metrics["power"]
    if metrics["recovery"]:
        lines.append(
            "Angular power relative to that with the true weights, l < 30: "
            f"{_times(power['before_low'])} before weighting, {_times(power['kept_low'])} after; "
            f"l ≥ 30: {_times(power['kept_high'])} after."
        )
    else:
        lines.append(
            "Angular power after weighting relative to before: "
            f"{_times(power['after_over_before_low'])} at l < 30, "
            f"{_times(power['after_over_before_high'])} at l ≥ 30."
        )
    return lines


def _times(value: float | None) -> str:
    return "(no power)" if value is None else f"{value:.2f}"


def _loss_table(metrics: Metrics) -> list[str]:
    lines = ["| model | out-of-fold loss | minus loss of the weights | minus loss of the network |",
             "|---|---|---|---|"]  # fmt: skip
    for name, losses in metrics["losses"].items():
        gains = metrics["gains"].get(name)
        network = metrics["network_gains"].get(name)
        lines.append(
            f"| {name} | {losses['pnll']:.5f} | {_with_error(gains)} | {_with_error(network)} |"
        )
    return lines


def _truth_table(metrics: Metrics) -> list[str]:
    lines = ["| weights from | correlation with truth | rms error | power kept, l < 30 | l ≥ 30 |",
             "|---|---|---|---|---|"]  # fmt: skip
    power = {"weights": metrics["power"], **metrics["power"]["models"]}
    for name, found in metrics["recovery"].items():
        correlation = found["correlation"]
        lines.append(
            f"| {name} | {'-' if correlation is None else f'{correlation:.3f}'} | "
            f"{found['error']:.3f} | {_times(power[name]['kept_low'])} | "
            f"{_times(power[name]['kept_high'])} |"
        )
    return lines


def _cautions(metrics: Metrics, nulltest: Metrics) -> list[str]:
    cautions = []
    stack, outliers = metrics["stack"], metrics["outliers"]
    clipped = stack["clipped_low"] + stack["clipped_high"]
    if clipped:
        cautions.append(f"{clipped} pixels were outside {stack['clip']} and were clipped to it")
    if outliers["n"]:
        first = outliers["listed"][0]
        cautions.append(
            f"{_count(outliers['n'], 'label')} far beyond chance, up to {first['label']:.3g} where "
            f"{first['expected']:.3g} was expected (pixel {first['hpix']}): "
            f"{outliers['loss_share']:.1%} of the squared loss; without them the selection "
            f"function of a linear fit changes by {outliers['shift']:.4f} rms"
        )
    if metrics["n_superpixels"] < 20:
        cautions.append(
            f"errors rest on {metrics['n_superpixels']} superpixels: too few to estimate them well"
        )
    if metrics["gains"]["constant"]["pnll"]["better"] < 0.95:
        cautions.append("the weights do not clearly improve the fit: do not apply them")
    if nulltest["after"]["p_value"] > 1 - LEVEL:
        cautions.append(
            "after weighting the density correlates with the templates less than expected by "
            "chance: the weights remove some of the galaxies' own structure"
        )
    return cautions


def _count(n: int, what: str) -> str:
    return f"{n} {what} lies" if n == 1 else f"{n} {what}s lie"


def _worst(found: Metrics) -> str:
    if found["worst_p_value"] >= LEVEL:
        return ""
    return f" ({found['worst']} alone {found['worst_p_value']:.2g})"


def ranked(test: Metrics, when: str) -> str:
    """Return '0.34', or '≤ 0.005' where no mock sky of the null test reaches it."""
    value = test[when]["p_value"]
    least = value * (test["n_mocks"] + 1) < 1.5
    return f"{'≤ ' if least else ''}{value:.2g}"


def _p(found: Metrics) -> str:
    return f"{found['p_value']:.2g}"


def _gain(metrics: Metrics, model: str) -> str:
    return _with_error(metrics["gains"][model])


def _with_error(gains: Metrics | None) -> str:
    if gains is None:
        return ""
    found = gains["pnll"]
    error = found["error"]
    return f"{found['value']:.5f}" + (f" ± {error:.5f}" if error is not None else "")
