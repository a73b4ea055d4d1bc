"""Sums over the parts of a batch and over ranks: the same bits for any number of ranks.

A sum of floats depends on the order of the additions; a sum of integers does not. Therefore the
parts are scaled by a power of two so that their sum fits into 63 bits, rounded to integers and
added. Every part is a fixed micro-batch, so the sum does not depend on the ranks that compute it.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from skyproof.core.comm import Comm, SerialComm

_BITS = 62  # of an int64, without the sign and one spare bit
_LARGEST_EXPONENT = 1000  # of a scale; parts below 1e-280 lose digits
_TIMEOUT = timedelta(minutes=30)  # after which a rank without an answer counts as lost
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
                backend, store=store, rank=self.rank, world_size=self.size, timeout=_TIMEOUT
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
        store = dist.TCPStore(host, 0, comm.size, True, _TIMEOUT, wait_for_workers=False)
        comm.bcast(store.port)
        return store
    return dist.TCPStore(host, comm.bcast(0), comm.size, False, _TIMEOUT)


class ExactSum:
    """Sums of float vectors [n] over all ranks: the same bits for any distribution of the parts.

    `like` gives device, length and type of the sums. All elements have the scale of the
    largest one; with `each` every element has a separate scale.
    """

    def __init__(self, team: Team, like: torch.Tensor, *, each: bool = False) -> None:
        self._team, self._like, self._each = team, like, each
        # Allocating memory for each sum would take several times as long as the sum.
        self._work = torch.empty_like(like, dtype=torch.float64)
        self._whole = torch.empty_like(like, dtype=torch.int64)
        self._total = torch.empty_like(self._whole)

    def __call__(self, parts: Sequence[torch.Tensor], n_parts: int) -> torch.Tensor:
        """Return the sum of the `parts` of all ranks; a rank may have none.

        `n_parts` is the number of parts of all ranks. With x the largest element of any part, the
        sum is exact to 2^-(62 - log2 n_parts) x. If an element is not finite, all elements of the
        sum are NaN; with `each`, only that element.
        """
        largest = self._like.new_zeros(self._like.shape if self._each else (), dtype=torch.float64)
        if parts:
            sizes = [part.abs() if self._each else part.abs().amax() for part in parts]
            largest = torch.stack(sizes).amax(0).double()
        # A maximum over ranks can lose NaN, but not infinity.
        largest = torch.where(torch.isfinite(largest), largest, torch.inf)
        found = self._team.all_max(largest).flatten().tolist()
        scales = [_scale(value, n_parts) for value in found]
        if not self._each and scales[0] is None:
            return torch.full_like(self._like, torch.nan)
        scale: float | torch.Tensor = scales[0] or 1.0
        if self._each:  # elements that are not finite are set to NaN below
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
    """Return the power of two by which parts are multiplied; None if they are not finite."""
    if not math.isfinite(largest):
        return None
    _, exponent = math.frexp(largest)
    return 2.0 ** min(_BITS - exponent - math.ceil(math.log2(n_parts)), _LARGEST_EXPONENT)


class PlainSum:
    """Sums of floats: half the communication; the bits depend on the number of ranks."""

    def __init__(self, team: Team, like: torch.Tensor) -> None:
        self._team, self._like = team, like

    def __call__(self, parts: Sequence[torch.Tensor], n_parts: int) -> torch.Tensor:
        """Return the sum of the `parts` of all ranks."""
        total = torch.zeros_like(self._like)
        for part in parts:
            total += part
        return self._team.all_sum(total)
