"""Stage obiwan.evaluate: figures of merit of the test part, the verdict, and figures.

`metrics.json` (keys sorted; null where a value is not defined):

- n, n_real, n_fake, bricks, groups (bricks, or patches of them), groups_in_training, confidence
- verdict (see `verdict.rule`), statement (one sentence)
- accuracy, auc, metadata_auc, matched_auc: value, low, high, standard_error, units, unit, trusted
  (`assess.twosample.Interval`); auc also null_mean, null_sd and detectable (detected with 80 %
  probability); metadata_auc also p_value, training_rows; matched_auc also effective_real,
  effective_fake, imbalance_before, imbalance_after, columns
- p_value (network), balanced_accuracy, called_fake (fraction of rows), baselines (majority_class,
  majority_accuracy)
- by_magnitude, magnitude: accuracy in bins of that column (`assess.twosample.accuracy_by`)
- calibration (`assess.twosample.calibration`)
- telling_columns (`assess.control.column_differences`)
- most_confident: real and fake rows that were classified correctly with the highest confidence
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.assess import control, plots, twosample
from skyproof.assess.page import Metrics, rounded, six_decimals, with_interval
from skyproof.core import blocks
from skyproof.core.formats import read, write
from skyproof.obiwan.dataset import training_files
from skyproof.obiwan.verdict import figures, rule, scores

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Evaluate

_CONTROL_ROWS = 200_000  # training rows of the control; more rows do not change its AUC
_CONTROL_LEAST = 50  # of each class
_MATCHED_LEAST = 20  # effective rows of each class
_BAND_DRAWS = 200
_CONFIDENT = 5


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Evaluate, context: Context
) -> None:
    """Compute the figures of merit and the verdict, and draw the figures."""
    test = scores.read_scores(inputs.scores, options.bands)
    history = scores.read_history(inputs.history)
    items = list(blocks.read_indexes(inputs.split))
    train = scores.read_training(
        training_files(items), options.bands, _CONTROL_ROWS, context.stream("control", "files")
    )
    context.log.info("%d scores, %d rows for the control", len(test["score"]), len(train["id"]))

    sample = ScoredRows(test, options, context)
    metadata = metadata_scores(train, test, options.bands)
    metrics = measure(sample, train, metadata)
    write.json(outputs.metrics, rounded(metrics, six_decimals))
    Path(outputs.verdict).write_text(rule.page(metrics, options.bands[0]), encoding="utf-8")
    context.log.info("%s", metrics["statement"])
    draw(sample, metrics, metadata, history, items, inputs.scores, outputs)


class ScoredRows:
    """The rows of the scored test part, with score, label and group, and their statistics."""

    def __init__(self, test: read.Columns, options: Evaluate, context: Context) -> None:
        self.table, self.options, self.context = test, options, context
        self.score = test["score"].astype(float)
        self.label = test["label"].astype(int)
        self.group = scores.groups_of(test, options.patch_pixels)

    def interval(self, purpose: str, statistic: Callable[[np.ndarray], float]) -> Metrics:
        """Return value and confidence interval of `statistic(row weights)`."""
        interval = twosample.bootstrap_interval(
            statistic, self.group, draws=self.options.n_bootstrap,
            confidence=self.options.confidence, stream=self.context.stream("bootstrap", purpose),
        )  # fmt: skip
        return {"value": statistic(np.ones(len(self.label))), **asdict(interval)}

    def permutation(self, purpose: str, values: np.ndarray) -> twosample.Permutation:
        return twosample.permutation_test(
            values, self.label, self.group, draws=self.options.n_permutations,
            stream=self.context.stream("permutation", purpose),
        )  # fmt: skip


def metadata_scores(train: read.Columns, test: read.Columns, bands: str) -> np.ndarray | None:
    """Return the control's probability of class 1 [n], or None if training rows are too few."""
    label = train["label"].astype(int)
    if min((label == 0).sum(), (label == 1).sum()) < _CONTROL_LEAST:
        return None
    table = scores.features(train, test, bands)
    return control.table_scores(table.train, label, table.test)


def measure(sample: ScoredRows, train: read.Columns, metadata: np.ndarray | None) -> Metrics:
    """Return all figures of merit; keys as in the module docstring."""
    options, score, label = sample.options, sample.score, sample.label
    network = sample.permutation("network", score)
    magnitude = f"mag_{options.bands[0]}"
    table = scores.features(train, sample.table, options.bands)
    train_groups = scores.groups_of(train, options.patch_pixels)
    metrics: Metrics = {
        "n": len(label),
        "n_real": int((label == 0).sum()),
        "n_fake": int((label == 1).sum()),
        "bricks": len(np.unique(sample.table["brick"])),
        "groups": len(np.unique(sample.group)),
        "groups_in_training": len(np.intersect1d(sample.group, train_groups)),
        "confidence": options.confidence,
        "accuracy": sample.interval(
            "accuracy", lambda weights: twosample.accuracy(score, label, weights)
        ),
        "balanced_accuracy": twosample.balanced_accuracy(score, label),
        "called_fake": float((score >= 0.5).mean()),
        "auc": network_auc(sample, network),
        "p_value": network.p_value,
        "metadata_auc": None,
        "matched_auc": matched_auc(sample, train),
        "baselines": baselines(label, train["label"]),
        "magnitude": magnitude,
        "by_magnitude": twosample.accuracy_by(
            sample.table[magnitude].astype(float), score, label,
            bins=options.magnitude_bins, confidence=options.confidence,
        ),
        "calibration": twosample.calibration(score, label),
        "telling_columns": control.column_differences(table.names, table.test, score, label),
        "most_confident": most_confident(sample.table, magnitude),
    }  # fmt: skip
    if metadata is not None:
        metrics["metadata_auc"] = {
            **sample.interval("metadata", twosample.Ranking(metadata, label).auc),
            "p_value": sample.permutation("metadata", metadata).p_value,
            "training_rows": len(train["id"]),
        }
    metrics["verdict"] = rule.judge(metrics)
    metrics["statement"] = rule.statement(metrics)
    return metrics


def network_auc(sample: ScoredRows, null: twosample.Permutation) -> Metrics:
    """Return the AUC with its interval, and the smallest AUC that the sample can detect.

    The error is the larger one of two: that of shuffles within bricks and that between bricks.
    """
    figure = sample.interval("auc", twosample.Ranking(sample.score, sample.label).auc)
    error = max(null.standard_deviation, figure["standard_error"])
    return {
        **figure,
        "null_mean": null.mean,
        "null_sd": null.standard_deviation,
        "detectable": twosample.detectable_auc(error, sample.options.confidence),
    }


def matched_auc(sample: ScoredRows, train: read.Columns) -> Metrics | None:
    """Return the AUC with brightness, colours and size balanced, or None without overlap."""
    train_label, label = train["label"].astype(int), sample.label
    if min((train_label == 0).sum(), (train_label == 1).sum()) < _CONTROL_LEAST:
        return None
    bands = sample.options.bands
    table = scores.features(train, sample.table, bands).only(scores.matched_columns(bands))
    weights = control.overlap_weights(table.train, train_label, table.test, label)
    real, fake = (control.effective_size(weights[label == k]) for k in (0, 1))
    if min(real, fake) < _MATCHED_LEAST:
        return None
    ranking = twosample.Ranking(sample.score, label)
    return {
        **sample.interval("matched", lambda drawn: ranking.auc(drawn * weights)),
        "effective_real": real,
        "effective_fake": fake,
        "imbalance_before": control.worst_imbalance(table.test, label),
        "imbalance_after": control.worst_imbalance(table.test, label, weights),
        "columns": table.names,
    }


def baselines(label: np.ndarray, train_label: np.ndarray) -> Metrics:
    """Return the accuracy of always predicting the larger training class (real if equal)."""
    majority = int(2 * (train_label == 1).sum() > len(train_label))
    return {
        "majority_class": ("real", "fake")[majority],
        "majority_accuracy": float((label == majority).mean()),
    }


def most_confident(table: read.Columns, magnitude: str) -> dict[str, list[Metrics]]:
    """Return the rows of each class that were classified correctly with the highest confidence."""
    found: dict[str, list[Metrics]] = {}
    for number, name in enumerate(("real", "fake")):
        score = table["score"].astype(float)
        right = np.flatnonzero((table["label"] == number) & ((score >= 0.5) == bool(number)))
        best = right[np.argsort(score[right] * (-1) ** number, kind="stable")][:_CONFIDENT]
        shown = ("brick", "rs", "id", "score", magnitude)
        found[name] = [{key: table[key][row] for key in shown} for row in best]
    return found


def draw(
    sample: ScoredRows,
    metrics: Metrics,
    metadata: np.ndarray | None,
    history: read.Columns,
    items: list[blocks.Item],
    source: Path,
    outputs: SimpleNamespace,
) -> None:
    """Draw the four figures."""
    bands = sample.options.bands
    chosen = figures.choose_pairs(sample.table[metrics["magnitude"]], sample.label)
    rows = {name: column[chosen] for name, column in sample.table.items()}
    pixels = scores.read_pixels_of(rows, items, bands, source)
    with plots.style():
        write.figure(outputs.mosaic, figures.mosaic(pixels, rows, bands))
        write.figure(outputs.roc, roc_figure(sample, metrics, metadata))
        write.figure(
            outputs.magnitude,
            plots.accuracy_figure(
                metrics["by_magnitude"],
                overall=metrics["accuracy"]["value"],
                title="Accuracy by magnitude",
                x_label=f"{bands[0]} magnitude (corrected for extinction)",
            ),
        )
        write.figure(outputs.curves, plots.training_figure(history, chance=0.5, title="Training"))


def roc_figure(sample: ScoredRows, metrics: Metrics, metadata: np.ndarray | None) -> Any:
    """Draw the network's ROC with its band, and that of the control."""
    ranking = twosample.Ranking(sample.score, sample.label)
    grid = np.linspace(0, 1, 101)
    low, high = twosample.roc_band(
        ranking, sample.group, grid,
        draws=min(_BAND_DRAWS, sample.options.n_bootstrap), confidence=sample.options.confidence,
        stream=sample.context.stream("bootstrap", "roc"),
    )  # fmt: skip
    name = f"network: AUC {with_interval(metrics['auc'])}"
    curves = [plots.Curve(name, *ranking.roc(), band=(grid, low, high))]
    if metadata is not None:
        name = f"metadata alone: AUC {with_interval(metrics['metadata_auc'])}"
        curves.append(plots.Curve(name, *twosample.Ranking(metadata, sample.label).roc()))
    return plots.roc_figure(
        curves,
        title="Real or injected?",
        x_label="false positive rate (real classified as injected)",
        y_label="true positive rate (injected classified as injected)",
    )
