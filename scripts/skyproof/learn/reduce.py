"""Sums over the parts of a batch and over ranks: the same bits for any number of ranks.

A sum of floats depends on the order of the additions; a sum of integers does not. So the parts are
scaled by a power of two, such that their sum just fits into 63 bits, rounded to integers and added.
Every part is a fixed micro-batch, whichever rank computes it; hence the sum is that of one rank.
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
_LARGEST_EXPONENT = 1000  # of a scale; parts below 1e-280 lose digits
_PATIENCE = timedelta(minutes=30)  # a rank that does not answer for this time is lost
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Team:
    """The ranks that train one network, joined on a device; a single rank is not joined.

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
        """Leave the process group after a barrier."""
        if self.size > 1 and dist.is_initialized():
            self.comm.barrier()
            dist.destroy_process_group()


def _meet(comm: Comm) -> dist.TCPStore:
    """Open the store in which the ranks exchange addresses: on rank 0, at a free port."""
    hosts = comm.allgather(socket.gethostname())
    host = "127.0.0.1" if len(set(hosts)) == 1 else hosts[0]
    if comm.rank == 0:
        store = dist.TCPStore(host, 0, comm.size, True, _PATIENCE, wait_for_workers=False)
        comm.bcast(store.port)
        return store
    return dist.TCPStore(host, comm.bcast(0), comm.size, False, _PATIENCE)


class ExactSum:
    """Sums of float vectors [n] over all ranks: the same bits however the parts are shared.

    `like` gives device, length and type of the sums. All elements have one scale, that of the
    largest; with `each` every element has its own.
    """

    def __init__(self, team: Team, like: torch.Tensor, *, each: bool = False) -> None:
        self._team, self._like, self._each = team, like, each
        # New memory for each sum would take several times as long as the sum.
        self._work = torch.empty_like(like, dtype=torch.float64)
        self._whole = torch.empty_like(like, dtype=torch.int64)
        self._total = torch.empty_like(self._whole)

    def __call__(self, parts: Sequence[torch.Tensor], n_parts: int) -> torch.Tensor:
        """Return the sum of this rank's `parts` (there may be none) and of all others'.

        `n_parts` counts the parts of all ranks. Relative to the largest element x of any part, the
        sum is exact down to 2^-(62 - log2 n_parts) x. Where an element is not finite, all elements
        of the sum are NaN; with `each`, that element.
        """
        largest = self._like.new_zeros(self._like.shape if self._each else (), dtype=torch.float64)
        if parts:
            sizes = [part.abs() if self._each else part.abs().amax() for part in parts]
            largest = torch.stack(sizes).amax(0).double()
        # NaN would be lost in a maximum; infinity is not.
        largest = torch.where(torch.isfinite(largest), largest, torch.inf)
        found = self._team.all_max(largest).flatten().tolist()
        scales = [_scale(value, n_parts) for value in found]
        if not self._each and scales[0] is None:
            return torch.full_like(self._like, torch.nan)
        scale: float | torch.Tensor = scales[0] or 1.0
        if self._each:  # elements that are not finite get any number here, and NaN below
            scale = largest.new_tensor([known or 1.0 for known in scales])
        self._total.zero_()
        for part in parts:
            self._work.copy_(part).mul_(scale).round_()
            self._total += self._whole.copy_(self._work)
        total = self._work.copy_(self._team.all_sum(self._total)).div_(scale)
        if None in scales:
            bad = torch.tensor([scale is None for scale in scales], device=total.device)
            total = total.masked_fill(bad, torch.nan)
        return total.to(self._like.dtype, copy=True)


def _scale(largest: float, n_parts: int) -> float | None:
    """Return the power of two by which parts are multiplied, or None where they are not finite."""
    if not math.isfinite(largest):
        return None
    _, exponent = math.frexp(largest)
    return 2.0 ** min(_BITS - exponent - math.ceil(math.log2(n_parts)), _LARGEST_EXPONENT)


class PlainSum:
    """Sums in floats: half the traffic, and bits that depend on the number of ranks."""

    def __init__(self, team: Team, like: torch.Tensor) -> None:
        self._team, self._like = team, like

    def __call__(self, parts: Sequence[torch.Tensor], n_parts: int) -> torch.Tensor:
        """Return the sum of this rank's `parts` and of all others'."""
        total = torch.zeros_like(self._like)
        for part in parts:
            total += part
        return self._team.all_sum(total)
