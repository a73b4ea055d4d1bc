"""The verdict: one rule, and the sentences that state it.

Two permutation tests, labels shuffled within bricks, at level a = 1 - confidence:
the network's scores (p), and a control that uses only catalogue columns (p_control).

1. p >= a: `indistinguishable` at this sample size; but `metadata` if p_control < a / 10 (a second
   test of the same question needs a stricter level, or null samples would fail too often).
2. p < a and AUC below its mean over the shuffles: `reversed`; the scores rank real above injected.
3. p < a and p_control >= a: `appearance`; `unexplained` where no control was possible.
4. p < a and p_control < a: `appearance and metadata` if the interval of the AUC lies above 0.5
   after weights that balance brightness, colours and size; else `metadata`.
"""

from __future__ import annotations

from skyproof.assess.page import Metrics, caution_lines, headline, with_interval

_CLEAR = 10
_UNEVEN = 0.02  # in AUC


def judge(metrics: Metrics) -> str:
    """Return the verdict's name, by the rule above."""
    level = _level(metrics)
    control, matched = metrics["metadata_auc"], metrics["matched_auc"]
    p_control = 1.0 if control is None else control["p_value"]
    if metrics["p_value"] >= level:
        return "metadata" if p_control < level / _CLEAR else "indistinguishable"
    if metrics["auc"]["value"] < metrics["auc"]["null_mean"]:
        return "reversed"
    if p_control >= level:
        return "appearance" if control else "unexplained"
    return "appearance and metadata" if matched and matched["low"] > 0.5 else "metadata"


def _level(metrics: Metrics) -> float:
    return round(1 - metrics["confidence"], 9)  # 0.05, not 0.05000000000000004


def statement(metrics: Metrics) -> str:
    """Return the verdict in one sentence with its figures."""
    control, matched = metrics["metadata_auc"], metrics["matched_auc"]
    figures = (
        f"AUC {with_interval(metrics['auc'])}, permutation p = {metrics['p_value']:.2g}, "
        f"n = {metrics['n']} in {metrics['bricks']} brick{'s' if metrics['bricks'] > 1 else ''}"
    )
    if metrics["verdict"] == "indistinguishable":
        return f"indistinguishable at this sample size: {figures}"
    if metrics["verdict"] == "reversed":
        return f"distinguished with reversed ranking: {figures}; were the labels swapped?"
    if metrics["verdict"] == "unexplained":
        return f"distinguished: {figures}; no control was possible, so the cause is unknown"
    alone = f"metadata alone reach {with_interval(control)}"
    if metrics["verdict"] == "appearance":
        return f"distinguished by appearance: {figures}; {alone}"
    if metrics["verdict"] == "appearance and metadata":
        return (
            f"distinguished by appearance and by metadata: {figures}; {alone}, and with "
            f"brightness, colours and size balanced the network reaches {with_interval(matched)}"
        )
    if metrics["p_value"] >= _level(metrics):
        return (
            f"not distinguished by the network ({figures}), but metadata alone distinguish the "
            f"classes: they reach {with_interval(control)}; match the samples first"
        )
    left = f"reaches {with_interval(matched)}" if matched else "cannot be tested"
    return (
        f"distinguished, but metadata alone suffice: {figures}; {alone}, and with brightness, "
        f"colours and size balanced the network {left}; match the samples first"
    )


def page(metrics: Metrics, magnitude: str) -> str:
    """Return the page `verdict.md`: the statement, its evidence, and its cautions."""
    text = metrics["statement"]
    lines = [
        "# Can a network tell injected galaxies from real ones?",
        "",
        headline(text),
        "",
        *(f"- {line}" for line in _findings(metrics, magnitude)),
    ]
    lines += caution_lines(_cautions(metrics))
    lines += [
        "",
        f"Intervals: {metrics['confidence']:.0%} confidence, from a bootstrap over "
        f"{'bricks or patches' if metrics['auc']['unit'] == 'group' else 'rows'}. "
        "AUC: probability that an injected galaxy scores higher than a real one; 0.5 is chance.",
    ]
    return "\n".join(lines) + "\n"


def _findings(metrics: Metrics, magnitude: str) -> list[str]:
    auc, control, matched = metrics["auc"], metrics["metadata_auc"], metrics["matched_auc"]
    baseline = metrics["baselines"]
    lines = [
        f"Power: this sample detects an AUC of {auc['detectable']:.2f} or more with 80 % "
        f"probability; an AUC above {auc['high']:.2f} is excluded.",
        f"Accuracy {with_interval(metrics['accuracy'])}; always predicting "
        f"{baseline['majority_class']} gives {baseline['majority_accuracy']:.2f}.",
    ]
    if control:
        lines.append(
            "Metadata alone (magnitudes, colours, size, seeing, depth, position in the pixel, "
            f"type): AUC {with_interval(control)}, p = {control['p_value']:.2g}."
        )
    if matched:
        lines.append(
            f"Brightness, colours and size balanced by weights: AUC {with_interval(matched)}, "
            f"effective sample {matched['effective_real']:.0f} real and "
            f"{matched['effective_fake']:.0f} injected rows; largest difference of means "
            f"{matched['imbalance_before']:.2f} standard deviations before the weights, "
            f"{matched['imbalance_after']:.2f} after."
        )
    rows = metrics["by_magnitude"]
    if len(rows) > 1:
        lines.append(
            "; ".join(
                f"{name} ({magnitude} {row['from']:.1f} to {row['to']:.1f}) accuracy "
                f"{row['accuracy']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
                for name, row in (("Brightest", rows[0]), ("faintest", rows[-1]))
            )
            + "."
        )
    telling = metrics["telling_columns"][:3]
    if telling:
        listed = ", ".join(f"{row['column']} (AUC {row['auc']:.2f})" for row in telling)
        lines.append(f"Columns that differ most between the classes: {listed}.")
    follows = sorted(metrics["telling_columns"], key=lambda r: -abs(r["score_correlation"]))[:3]
    if follows:
        listed = ", ".join(f"{row['column']} ({row['score_correlation']:+.2f})" for row in follows)
        lines.append(f"Columns most correlated with the score (rank correlation): {listed}.")
    error = metrics["calibration"]["expected_error"]
    lines.append(f"Expected calibration error of the scores as probabilities: {error:.2f}.")
    return lines


def _cautions(metrics: Metrics) -> list[str]:
    auc, cautions = metrics["auc"], []
    if metrics["called_fake"] in (0, 1):
        called = "injected" if metrics["called_fake"] else "real"
        cautions.append(
            f"every row is classified as {called}: accuracies carry no information, and the "
            "network may have learned nothing (see the training curves)"
        )
    if auc["unit"] == "row":
        cautions.append(
            "all rows are from one brick: the intervals treat them as independent and are too "
            "narrow; they do not apply to other bricks"
        )
    elif not auc["trusted"]:
        cautions.append(
            f"the intervals rest on {_groups(auc['units'])}: too few to estimate their scatter"
        )
    if metrics["groups_in_training"]:
        cautions.append(
            f"{_groups(metrics['groups_in_training'])} also in the training part: the network may "
            "have memorised their sky"
        )
    if abs(auc["null_mean"] - 0.5) > _UNEVEN:
        cautions.append(
            "the share of injected galaxies differs between bricks: shuffled labels give an AUC "
            f"of {auc['null_mean']:.2f}, not 0.50; the p-value allows for that"
        )
    if metrics["metadata_auc"] is None:
        cautions.append("the training catalogues are too small for a control on metadata")
    elif metrics["matched_auc"] is None:
        cautions.append(
            "the classes do not overlap in brightness, colours and size: they cannot be balanced"
        )
    return cautions


def _groups(number: int) -> str:
    return f"{number} brick or patch" if number == 1 else f"{number} bricks or patches"
