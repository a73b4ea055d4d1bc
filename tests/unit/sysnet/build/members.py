"""Members with random weights, made without training, for tests of later stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from skyproof.core import blocks
from skyproof.core.stage import Context
from skyproof.sysnet.members.member import SavedNetwork, write_member

SEEDS = (2664486226, 3865606280, 2185937781, 2285845164, 1280952859)


def make_state(model: str, structure: tuple[int, int], n_features: int, seed: int) -> dict:
    """Return weights of a network as in torch's modules."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    if model in ("lin", "linp"):
        return {"hl1.weight": draw(1, n_features), "hl1.bias": draw(1)}
    layers, units = structure
    state = {}
    for i in range(layers):
        n_in, n_out = n_features if i == 0 else units, 1 if i == layers - 1 else units
        state |= {f"fc.{i}.weight": draw(n_out, n_in), f"fc.{i}.bias": draw(n_out)}
        if i < layers - 1:
            state |= {f"bn.{i}.weight": draw(n_out), f"bn.{i}.bias": draw(n_out)}
            state |= {f"bn.{i}.running_mean": draw(n_out)}
            state |= {f"bn.{i}.running_var": draw(n_out).abs() + 0.1}
    return state


def make_member(
    fold: int = 0,
    chain: int = 0,
    *,
    model: str = "dnnp",
    structure: tuple[int, int] = (3, 5),
    loss: str = "pnll",
    weighting: str = "poisson",
    features: tuple[str, ...] = ("a", "b", "c"),
    keep: tuple[bool, ...] | None = None,
    snapshots: tuple[int, ...] = (),
    n_epochs: int = 4,
) -> SavedNetwork:
    """Return a member with random weights, different for every fold and chain."""
    seed = SEEDS[chain]
    rng = np.random.default_rng([fold, chain])
    state = make_state(model, structure, len(features), seed + fold)
    weights = [name for name in state if not name.split(".")[-1].startswith("running")]
    return SavedNetwork(
        fold=fold,
        chain=chain,
        seed=seed,
        model=model,
        structure=structure,
        loss=loss,
        weighting=weighting,
        normalisation="z-score",
        features=features,
        shift=rng.normal(size=len(features)),
        scale=rng.uniform(0.5, 2, len(features)),
        keep=np.array(keep or (True,) * len(features)),
        label=(1.0, 0.5),
        state=state,
        train=rng.normal(size=n_epochs),
        valid=np.linspace(1, 0, n_epochs) ** 2,
        rate=np.full(n_epochs, 0.01),
        best_epoch=n_epochs - 1,
        snapshots={
            epoch: make_state(model, structure, len(features), seed + fold + epoch + 1)
            for epoch in snapshots
        },
        optimiser={
            f"{what}.{name}": torch.full_like(state[name], 0.25)
            for what in ("exp_avg", "exp_avg_sq")
            for name in weights
        },
        n_steps=n_epochs * 7,
        training={
            "optimiser": "adamw",
            "scheduler": "cosann",
            "learning_rate": 0.01,
            "eta_min": 1e-5,
            "weight_decay": 0.0,
            "steps_per_epoch": 7,
        },
    )


def write_groups(folder: Path, members: list[SavedNetwork], group_size: int = 2) -> Path:
    """Write members and the block index of their groups, as sysnet.train; return its path."""
    groups = {
        f"group-{start // group_size:05d}": members[start : start + group_size]
        for start in range(0, len(members), group_size)
    }

    def make(group: str, files: blocks.ItemFiles) -> dict:
        for member in groups[group]:
            with files.write(member.name) as path:
                write_member(path, member)
        return {"members": [[m.fold, m.chain, m.seed] for m in groups[group]]}

    index = folder / "block-00000.json"
    folder.mkdir(parents=True, exist_ok=True)
    Context("sysnet.train", seed=1).each(list(groups), make, index)
    return index
