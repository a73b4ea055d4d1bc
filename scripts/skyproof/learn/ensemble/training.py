"""Batched training of an ensemble of small networks, on a CPU or a GPU.

The numbers of a member depend on the member, the settings and the fixed size of the group, not on
the other members, their number or their order. Its order of rows, initial weights and dropped units
follow from its key. A group that is not full is padded. A member without rows in a step, or that
has stopped, does not change. A checkpoint contains weights, moments and histories at the end of an
epoch, so a killed training continues to the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from skyproof.core.seeds import Stream
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.ensemble.group import EnsembleGroup
from skyproof.learn.ensemble.members import EnsembleMember, EnsembleSettings, TrainedMember


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

    Continues from the newest of `checkpoints`. A member whose losses are all NaN has best_epoch -1
    and does not affect the others.
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
