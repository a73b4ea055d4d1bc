"""The lines of the original's `train.log`. Other programs read them: their text is fixed.

The log is a product: it contains no times and no folders. Losses have six digits.
"""

from __future__ import annotations


def data(n_rows: int) -> str:
    return f"# of data: {n_rows}"


def partition(fold: int, model: str, structure: tuple[int, int], n_features: int) -> str:
    """Return the line of a fold: (layers, units, features, outputs), or (features, outputs)."""
    linear = model in ("lin", "linp")
    return f"partition_{fold} with {(n_features, 1) if linear else (*structure, n_features, 1)}"


def baseline(name: str, value: float) -> str:
    return f"{name}: {value:.6f}"


def chain(seed: int) -> str:
    return f"# running training and evaluation with seed: {seed}"


def epoch(number: int, n_epochs: int, train: float, valid: float, rate: float) -> str:
    """Return the line of an epoch; `rate` is the learning rate of its last step."""
    return (
        f"Epoch {number}/{n_epochs - 1} train loss: {train:.6f} "
        f"valid loss: {valid:.6f} lr: {rate:.6f}"
    )


def best(valid: float, test: list[float]) -> str:
    """Return the line of a finished chain; with snapshots the test loss is their mean."""
    mean = sum(test) / len(test)
    return f"best val loss: {valid:.6f}, {'(mean) ' if len(test) > 1 else ''}test loss: {mean:.6f}"


def wrote_weights(name: str) -> str:
    return f"wrote weights: {name}"


def wrote_metrics(name: str) -> str:
    return f"wrote metrics: {name}"
