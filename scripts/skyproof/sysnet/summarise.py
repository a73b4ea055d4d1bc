"""Stage sysnet.summarise: one page and one file with the verdicts of all regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from skyproof.core.errors import InputError
from skyproof.core.formats import read, write
from skyproof.sysnet.verdict.rule import ranked

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Summarise

_NAMES = {
    "clean": "no correlation with the templates",
    "corrected": "correlation with the templates removed by the weights",
    "left": "correlation with the templates left after weighting",
}


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Summarise, context: Context
) -> None:
    """Write the page and the figures of all regions."""
    regions: dict[str, dict[str, Any]] = {}
    for path in inputs.metrics:
        metrics = read_metrics(path)
        if metrics["region"] in regions:
            raise InputError(path, f"has region {metrics['region']!r}, as another file has")
        regions[metrics["region"]] = metrics
    write.json(outputs.metrics, {"regions": regions})
    Path(outputs.verdict).write_text(page(regions), encoding="utf-8")


@dataclass(frozen=True)
class RankedForm:
    """The result of the null test before or after weighting."""

    p_value: float


@dataclass(frozen=True)
class RankedTestsForm:
    """The null test of a region."""

    before: RankedForm
    after: RankedForm
    n_mocks: int


@dataclass(frozen=True)
class LossDifferenceForm:
    """By how much the loss is below that of another model."""

    value: float
    error: float | None


@dataclass(frozen=True)
class LossesForm:
    """The differences by loss, of which the page shows one."""

    pnll: LossDifferenceForm


@dataclass(frozen=True)
class GainsForm:
    """The differences by model, of those that the page shows."""

    constant: LossesForm
    linear: LossesForm
    quadratic: LossesForm


@dataclass(frozen=True)
class StackSharesForm:
    """The models of a stack with their weights, means over folds."""

    mean_weights: dict[str, float]


@dataclass(frozen=True)
class RegionMetricsForm:
    """What the page needs of metrics.json."""

    region: str
    verdict: Literal["clean", "corrected", "left"]
    statement: str
    nulltest: RankedTestsForm
    gains: GainsForm
    stack: StackSharesForm
    n_pixels: int


def read_metrics(path: Path) -> dict[str, Any]:
    """Return metrics.json of a region."""
    return read.checked_json(path, RegionMetricsForm, expected="metrics.json of sysnet.evaluate")


def page(regions: dict[str, dict[str, Any]]) -> str:
    """Return verdict.md: a sentence on all regions, and a table with one row per region."""
    parts = [f"{name}: {_NAMES[metrics['verdict']]}" for name, metrics in regions.items()]
    lines = [
        "# Imaging systematics in the galaxy density",
        "",
        f"**{'; '.join(parts)}.**",
        "",
        "| region | pixels | null test p before | after | loss below a constant | below linear | "
        "below quadratic | weights in the stack |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, metrics in regions.items():
        test, gains = metrics["nulltest"], metrics["gains"]
        shares = ", ".join(f"{k} {v:.2f}" for k, v in metrics["stack"]["mean_weights"].items())
        cells = [
            f"[{name}](../{name}/evaluate/verdict.md)",
            f"{metrics['n_pixels']}",
            ranked(test, "before"),
            ranked(test, "after"),
            *(_gain(gains[model]["pnll"]) for model in ("constant", "linear", "quadratic")),
            shares,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {name}: {metrics['statement']}." for name, metrics in regions.items())]
    return "\n".join(lines) + "\n"


def _gain(found: dict[str, float | None]) -> str:
    error = found["error"]
    return f"{found['value']:.5f}" + (f" ± {error:.5f}" if error is not None else "")
