"""Stage sysnet.train: folds x chains of networks, trained as batched ensembles.

Network k = fold x n_chains + chain belongs to group k // group_size. A job trains a block of
groups, divided among its ranks. Each network has a separate file (`members/member.py`), and the
block index lists fold, chain and seed of the networks of each group. Checkpoints of unfinished
groups are in `ckpts/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from skyproof.core.errors import InputError, SkyproofError, UsageError
from skyproof.learn import device, ensemble
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.ensemble.compiled import can_compile
from skyproof.sysnet.members.member import (
    MemberFile,
    SavedNetwork,
    find_members,
    read_member,
    write_member,
)
from skyproof.sysnet.members.rows import (
    FoldRows,
    chain_seeds,
    groups,
    read_rows,
    read_tuning,
    settings,
)
from skyproof.sysnet.network import ensemble_names, original_names

if TYPE_CHECKING:
    from skyproof.core.blocks import ItemFiles
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Train
    from skyproof.sysnet.table import Table


@dataclass(frozen=True)
class TrainingInputs:
    """The data and settings that all groups of a job share."""

    table: Table
    folds: list[FoldRows]
    seeds: list[int]
    learning_rate: float
    structure: tuple[int, int]
    l1_alpha: float
    start: Mapping[tuple[int, int], MemberFile]  # by fold and chain
    options: Train
    settings: ensemble.EnsembleSettings


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Train, context: Context
) -> None:
    """Train the groups of a block, divided among the ranks, and write their networks."""
    where = device.prepare(context, options)
    job = prepare(inputs, options)
    numbers = groups(len(job.folds) * options.n_chains, options.group_size)
    first = options.block * options.block_size
    mine = {
        f"group-{first + i:05d}": group
        for i, group in enumerate(numbers[first : first + options.block_size])
    }
    if not mine:
        raise UsageError(f"block {options.block} contains none of the {len(numbers)} groups")
    compiled = options.compile and can_compile()
    context.note("compiled", compiled)
    folder = context.checkpoints(outputs.members)

    def work(name: str, files: ItemFiles) -> Mapping[str, Any]:
        places = [divmod(number, options.n_chains) for number in mine[name]]
        checkpoints = Checkpoints(folder / name, f"{context.cache_key} {compiled}", context.log)
        trained = ensemble.fit(
            [member_of(job, *place) for place in places],
            job.settings,
            stream=context.stream,
            device=where,
            log=context.log,
            checkpoints=checkpoints,
        )
        for (fold, chain), result in zip(places, trained, strict=True):
            member = as_member(job, fold, chain, result)
            with files.write(member.name) as path:
                write_member(path, member)
        named = [[fold, chain, job.seeds[chain]] for fold, chain in places]
        return {"members": named, "compiled": compiled}

    context.each(list(mine), work, outputs.members)


def prepare(inputs: SimpleNamespace, options: Train) -> TrainingInputs:
    """Read the inputs. Raise InputError or UsageError if they cannot be used for training."""
    table, folds = read_rows(inputs, options)
    learning_rate, structure, l1_alpha = read_tuning(inputs.tuning)
    start = {(p.fold, p.chain): p for p in find_members(inputs.start)} if inputs.start else {}
    return TrainingInputs(
        table,
        folds,
        chain_seeds(options.n_chains),
        learning_rate,
        structure,
        l1_alpha,
        start,
        options,
        settings(
            options,
            structure,
            len(table.names),
            options.n_epochs,
            snapshots=options.snapshots,
            checkpoint_every=options.checkpoint_every,
        ),
    )


def member_of(job: TrainingInputs, fold: int, chain: int) -> ensemble.EnsembleMember:
    """Return the network of a fold and chain, with the state from which it starts, if any."""
    start = None
    if job.start:
        place = job.start.get((fold, chain))
        if place is None:
            raise InputError(
                next(iter(job.start.values())).path.parent, f"has no chain {chain} of fold {fold}",
                expected="a network to start from for every fold and chain",
            )  # fmt: skip
        start = as_trained(job, place)
    return job.folds[fold].member(
        job.seeds[chain],
        job.learning_rate,
        weight_decay=job.options.weight_decay,
        l1=max(job.l1_alpha, 0.0),
        start=start,
    )


def as_trained(job: TrainingInputs, place: MemberFile) -> ensemble.TrainedMember:
    """Read a network to start from.

    Raise InputError if its model, structure, features or optimiser differ from the configuration.
    """
    member = read_member(place.path)
    options, shape = job.options, job.settings.shape
    wanted = (options.model, job.structure, job.table.names, options.optimiser)
    given = (member.model, member.structure, member.features, member.training["optimiser"])
    for name, here, there in zip(
        ("model", "structure", "features", "optimiser"), wanted, given, strict=True
    ):
        if here != there:
            raise InputError(place.path, f"has another {name}, {there}", expected=f"{here}")
    moments: dict[str, dict[str, Any]] = {}
    for name, tensor in member.optimiser.items():
        kind, _, of = name.partition(".")
        moments.setdefault(kind, {})[of] = tensor
    return ensemble.TrainedMember(
        state=ensemble_names(member.model, shape, member.state),
        moments={kind: ensemble_names(member.model, shape, own) for kind, own in moments.items()},
        n_steps=member.n_steps,
        best_epoch=member.best_epoch,
        train=member.train,
        valid=member.valid,
        rate=member.rate,
        snapshots={
            epoch: ensemble_names(member.model, shape, state)
            for epoch, state in member.snapshots.items()
        },
    )


def as_member(
    job: TrainingInputs, fold: int, chain: int, result: ensemble.TrainedMember
) -> SavedNetwork:
    """Return a trained network with its settings and losses, as written to its file."""
    options, rows, seed = job.options, job.folds[fold], job.seeds[chain]
    if result.best_epoch < 0:
        raise SkyproofError(
            f"fold {fold}, seed {seed}: the loss is {result.valid[0]} since the first epoch; "
            "a smaller learning_rate may help"
        )
    return SavedNetwork(
        fold=fold,
        chain=chain,
        seed=seed,
        model=options.model,
        structure=job.structure,
        loss=options.loss,
        weighting=options.weighting,
        normalisation=options.normalisation,
        features=tuple(job.table.names),
        shift=rows.shift,
        scale=rows.scale,
        keep=rows.keep,
        label=rows.label,
        state=original_names(options.model, result.state),
        train=result.train,
        valid=result.valid,
        rate=result.rate,
        best_epoch=result.best_epoch,
        snapshots={
            epoch: original_names(options.model, state) for epoch, state in result.snapshots.items()
        },
        optimiser={
            f"{kind}.{name}": tensor
            for kind, own in result.moments.items()
            for name, tensor in original_names(options.model, own).items()
        },
        n_steps=result.n_steps,
        training={
            "optimiser": options.optimiser,
            "scheduler": options.scheduler,
            "learning_rate": job.learning_rate,
            "eta_min": options.eta_min,
            "weight_decay": options.weight_decay,
            "steps_per_epoch": -(-len(rows.train) // options.batch),
        },
    )
