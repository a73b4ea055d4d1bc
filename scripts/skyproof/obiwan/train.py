"""Stage obiwan.train: the network, trained on the training part of a split.

`model.safetensors` contains the weights and the normalisation (`network.*`) and, as metadata, bands
and pooling, from which inference builds the network. The folders `ckpts/`, `logs/` (TensorBoard)
and `prof/` (chrome://tracing) next to it have a subfolder named by the cache key of the training.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from skyproof.core import atomic, blocks
from skyproof.core.comm import on_first_rank
from skyproof.core.errors import InputError
from skyproof.core.formats import write
from skyproof.learn import checkpoint, device
from skyproof.learn.inputs import Symmetries
from skyproof.learn.reduce import Team
from skyproof.learn.settings import TrainingFiles, TrainingSettings
from skyproof.learn.shards import ClassNumbers, Shards
from skyproof.learn.trainer import fit
from skyproof.obiwan.dataset import SplitFiles, check_no_leak, training_files
from skyproof.obiwan.network import CLASSES, MODEL, OBJECTIVE, StampClassifier, initialise
from skyproof.obiwan.stamps.geometry import STAMP

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Train


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Train, context: Context
) -> None:
    """Check for leaks, fit the normalisation, train, write the model and its history."""
    parts = on_first_rank(context.comm, lambda: _training_part(inputs, context))
    where = device.prepare(context, options)
    pairs = [(part.x, part.y) for part in parts]
    shards = Shards(pairs, (STAMP, STAMP, 2 * len(options.bands)), ClassNumbers(CLASSES))
    network = _network(options, context, [part.x for part in parts])
    if context.comm.rank == 0:
        context.log.info(
            "%d stamps in %d files, %s, %d ranks",
            shards.n_rows, len(parts), where, context.comm.size,
        )  # fmt: skip
    team = Team(context.comm, where)
    history = fit(
        network,
        shards,
        OBJECTIVE,
        _settings(options, context),
        _files(inputs, outputs, options, context),
        stream=context.stream,
        device=where,
        log=context.log,
        progress=context.progress,
        team=team,
        assembly=Symmetries() if options.augment else None,
    )
    team.leave()
    if context.comm.rank == 0:
        about = {"format": MODEL, "bands": options.bands, "pool": options.pool}
        checkpoint.write(outputs.model, network.state_dict(), about)
        write.csv(outputs.history, history.columns(shards.steps(options.batch)))


def _training_part(inputs: SimpleNamespace, context: Context) -> list[SplitFiles]:
    items = list(blocks.read_indexes(inputs.split))
    check_no_leak(items, context.log)
    parts = training_files(items)
    if not parts:
        raise InputError(inputs.split[0], "has no training part", expected="xtrain_<k>.npy files")
    return parts


def _network(options: Train, context: Context, files: list[Path]) -> StampClassifier:
    """Return the initial network, with the normalisation of the training part, on every rank."""
    network = StampClassifier(len(options.bands), options.pool)
    initialise(network, context.stream)

    def scales() -> dict[str, torch.Tensor]:
        network.normalise.fit(files)
        return network.normalise.state_dict()

    network.normalise.load_state_dict(on_first_rank(context.comm, scales))
    return network


def _settings(options: Train, context: Context) -> TrainingSettings:
    exact = options.numerics == "portable"
    rows_of_a_rank = -(-options.batch // context.comm.size)
    return TrainingSettings(
        n_epochs=options.n_epochs,
        batch=options.batch,
        micro_batch=options.micro_batch if exact else rows_of_a_rank,
        learning_rate=options.learning_rate,
        schedule=options.schedule,
        weight_decay=options.weight_decay,
        checkpoint_every=options.checkpoint_every,
        profile_steps=options.profile_steps,
        mixed_precision=context.device == "cuda" and not exact,
        exact=exact,
    )


def _files(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Train, context: Context
) -> TrainingFiles:
    return TrainingFiles(
        folder=context.final(outputs.model).parent,
        cache_key=context.checkpoints(outputs.model).name,
        configuration=_configuration(inputs, options, context),
        start=inputs.start,
    )


def _configuration(inputs: SimpleNamespace, options: Train, context: Context) -> str:
    """Return the digest of options, data and device, which must equal that of a start checkpoint.

    The cache key is not suitable, because it also depends on the code and on `start` itself.
    """
    content = {
        "options": options.model_dump(mode="json", exclude={"checkpoint_every", "profile_steps"}),
        "split": sorted(atomic.sha256_of(path) for path in inputs.split),
        "device": context.device,
        "threads": context.threads,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
