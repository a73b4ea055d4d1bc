"""Prediction of one network for rows of a table, with a fixed number of rows per pass."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from skyproof.learn.ensemble.members import State


def scaled(
    features: np.ndarray, shift: np.ndarray, scale: np.ndarray, keep: np.ndarray
) -> np.ndarray:
    """Return features [n, F] as input of a network, float32; features not in `keep` are 0."""
    return np.where(keep, (features - shift) / scale, 0.0).astype(np.float32)


@torch.no_grad()
def predict(model: str, state: State, x: np.ndarray, batch: int, where: torch.device) -> np.ndarray:
    """Return the density per unit of observed fraction, float32 [n], for scaled features [n, F].

    Every pass has exactly `batch` rows; the last one is padded with zeros. Kernels depend on the
    number of rows, and with a fixed number the prediction of a row does not depend on the others.
    """
    state = {name: tensor.to(where) for name, tensor in state.items()}
    density = np.empty(len(x), np.float32)
    for start in range(0, len(x), batch):
        rows = x[start : start + batch]
        padded = np.zeros((batch, x.shape[1]), np.float32)
        padded[: len(rows)] = rows
        found = forward(model, state, torch.from_numpy(padded).to(where))
        density[start : start + len(rows)] = found[: len(rows)].cpu().numpy()
    return density


def forward(model: str, state: State, x: torch.Tensor) -> torch.Tensor:
    """Return the output [n] of a network in evaluation mode; weights by the original's names.

    Batch normalisation follows each ReLU and uses its running statistics.
    """
    if model in ("lin", "linp"):
        out = functional.linear(x, state["hl1.weight"], state["hl1.bias"])
    else:
        layers = sum(name.startswith("fc.") and name.endswith(".weight") for name in state)
        for i in range(layers - 1):
            x = functional.linear(x, state[f"fc.{i}.weight"], state[f"fc.{i}.bias"]).relu()
            x = functional.batch_norm(
                x,
                state[f"bn.{i}.running_mean"],
                state[f"bn.{i}.running_var"],
                state[f"bn.{i}.weight"],
                state[f"bn.{i}.bias"],
                eps=1e-5,
            )
        last = f"fc.{layers - 1}"
        out = functional.linear(x, state[f"{last}.weight"], state[f"{last}.bias"])
    out = out.squeeze(-1)
    if model in ("dnnp", "linp"):
        return functional.softplus(out)
    return out.exp() if model == "dnnps" else out
