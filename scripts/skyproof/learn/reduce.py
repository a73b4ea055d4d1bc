"""Sums over the parts of a batch and over ranks: the same bits for any number of ranks.

Additions of floats depend on their order. Fixed-point integers do not: the parts are scaled by one
power of two, so large that their sum just fits into 63 bits, rounded to integers and added. Every
part is a fixed micro-batch, whichever rank computes it; hence the sum is that of one rank.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from skyproof.core.comm import Comm, SerialComm

_BITS = 62  # of an int64, without sign, and one to spare
_PATIENCE = timedelta(minutes=30)  # a rank that stays away so long is lost
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Team:
    """The ranks that train one network, joined on a device; one rank alone needs no joining.

    The launcher (mpiexec, srun) has started the processes; they find each other through `comm`.
    """

    def __init__(self, comm: Comm | None = None, device: torch.device | None = None) -> None:
        self.comm: Comm = comm or SerialComm()
        self.rank, self.size = self.comm.rank, self.comm.size
        if self.size > 1 and not dist.is_initialized():
            store = _meet(self.comm)
            backend = _BACKENDS[(device or torch.device("cpu")).type]
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.size, timeout=_PATIENCE
            )

    def all_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add `values` over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values, dist.ReduceOp.SUM)
        return values

    def all_max(self, values: torch.Tensor) -> torch.Tensor:
        """Take the largest of `values` over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def leave(self) -> None:
        """Part from the others, after all have done their work."""
        if self.size > 1 and dist.is_initialized():
            self.comm.barrier()
            dist.destroy_process_group()


def _meet(comm: Comm) -> dist.TCPStore:
    """Open the place where the ranks exchange addresses: on rank 0, at a port that is free."""
    hosts = comm.allgather(socket.gethostname())
    host = "127.0.0.1" if len(set(hosts)) == 1 else hosts[0]
    if comm.rank == 0:
        store = dist.TCPStore(host, 0, comm.size, True, _PATIENCE, wait_for_workers=False)
        comm.bcast(store.port)
        return store
    return dist.TCPStore(host, comm.bcast(0), comm.size, False, _PATIENCE)


class ExactSum:
    """Sums of float32 vectors [n] over all ranks: the same bits however the parts are shared."""

    def __init__(self, team: Team, like: torch.Tensor) -> None:
        self._team, self._like = team, like
        # New memory for each sum would take several times as long as the sum.
        self._work = torch.empty_like(like, dtype=torch.float64)
        self._whole = torch.empty_like(like, dtype=torch.int64)
        self._total = torch.empty_like(self._whole)

    def __call__(self, parts: Sequence[torch.Tensor], n_parts: int) -> torch.Tensor:
        """Return the sum of this rank's `parts`, maybe none, and of all others', `n_parts` in all.

        Relative to the largest element x of any part, the sum is exact down to
        2^-(62 - log2 n_parts) x. Where an element is not finite, all elements of the sum are NaN.
        """
        largest = self._like.new_zeros((), dtype=torch.float64)
        if parts:
            largest = torch.stack([part.abs().amax() for part in parts]).amax().double()
        # NaN would be lost in a maximum; infinity is not.
        largest = torch.where(torch.isfinite(largest), largest, torch.inf)
        scale = _scale(self._team.all_max(largest).item(), n_parts)
        if scale is None:
            return torch.full_like(self._like, torch.nan)
        self._total.zero_()
        for part in parts:
            self._work.copy_(part).mul_(scale).round_()
            self._total += self._whole.copy_(self._work)
        return self._work.copy_(self._team.all_sum(self._total)).div_(scale).to(self._like.dtype)


def _scale(largest: float, n_parts: int) -> float | None:
    """Return the power of two by which parts are multiplied, or None where they are not finite."""
    if not math.isfinite(largest):
        return None
    _, exponent = math.frexp(largest)
    return 2.0 ** (_BITS - exponent - math.ceil(math.log2(n_parts)))


class PlainSum:
    """Sums in floats: half the traffic, and other bits for another number of ranks."""

    def __init__(self, team: Team, like: torch.Tensor) -> None:
        self._team, self._like = team, like

    def __call__(self, parts: Sequence[torch.Tensor], n_parts: int) -> torch.Tensor:
        """Return the sum of this rank's `parts` and of all others'."""
        total = torch.zeros_like(self._like)
        for part in parts:
            total += part
        return self._team.all_sum(total)
