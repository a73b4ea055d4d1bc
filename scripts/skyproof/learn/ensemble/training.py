"""Many small networks trained as one: a batched ensemble, on a CPU or a GPU.

A member's numbers depend on itself, the settings and the fixed size of the group, never on its
companions, their number or their order: its order of rows, first weights and dropped units follow
from its own key, a group that is not full is padded, and a member that has no row in a step, or has
stopped, keeps its bits. A checkpoint is weights, moments and histories at the end of an epoch, so a
training that was killed goes on to the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.ensemble.group import EnsembleGroup
from skyproof.learn.ensemble.members import EnsembleMember, EnsembleSettings, TrainedMember
from skyproof.learn.shards import Stream


def fit(
    members: Sequence[EnsembleMember],
    settings: EnsembleSettings,
    *,
    stream: Stream,
    device: torch.device,
    log: logging.Logger,
    checkpoints: Checkpoints | None = None,
) -> list[TrainedMember]:
    """Train one group of at most `settings.group_size` members for `n_epochs` each.

    Goes on from the newest of `checkpoints`. A member whose losses are no numbers has best_epoch
    -1 and does not disturb the others.
    """
    group = EnsembleGroup(members, settings, stream, device, log)
    found = checkpoints.newest() if checkpoints else None
    if found is not None:
        group.load(*found)
        log.info("resuming after epoch %d of %d", found[0], settings.n_epochs)
    while group.epoch < settings.n_epochs and not group.stopped.all():
        group.run_epoch()
        if checkpoints and group.epoch % settings.checkpoint_every == 0:
            checkpoints.save(group.epoch, group.tensors())
    return group.results()
