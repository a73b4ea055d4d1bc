"""The communicator of a stage: mpi4py's, or a serial one with the same small interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar

from skyproof.core.errors import EnvironmentProblem, SkyproofError, from_os_error

T = TypeVar("T")

# By one of these mpich finds its launcher.
_PMI = ("PMI_RANK", "PMI_FD", "PMI_PORT")


class Comm(Protocol):
    """What stages may ask of a communicator."""

    rank: int
    size: int

    @property
    def local_rank(self) -> int: ...  # among the ranks of this node

    def barrier(self) -> None: ...
    def bcast(self, value: T) -> T: ...
    def gather(self, value: T) -> list[T] | None: ...
    def allgather(self, value: T) -> list[T]: ...


class SerialComm:
    """One rank, no MPI."""

    rank = 0
    size = 1
    local_rank = 0

    def barrier(self) -> None:
        return None

    def bcast(self, value: T) -> T:
        return value

    def gather(self, value: T) -> list[T] | None:
        return [value]

    def allgather(self, value: T) -> list[T]:
        return [value]


class MPIComm:
    """All ranks of the MPI world; objects travel pickled, which is enough for names and counts."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.rank = int(world.Get_rank())
        self.size = int(world.Get_size())

    @cached_property
    def local_rank(self) -> int:
        """Collective: all ranks ask for it, or none."""
        from mpi4py import MPI

        return int(self._world.Split_type(MPI.COMM_TYPE_SHARED).Get_rank())

    def barrier(self) -> None:
        self._world.barrier()

    # Each of these ends with a barrier. Without it a rank may leave while its message stays behind:
    # seen with mpich (ofi) between two nodes, where a few bytes of a bcast or gather arrived only
    # when their sender was in MPI again. A rank that went on to its work held up others until its
    # end, and a training, whose ranks wait for one another outside of MPI (gloo), never began.
    def bcast(self, value: T) -> T:
        return self._settled(self._world.bcast(value, root=0))

    def gather(self, value: T) -> list[T] | None:
        return self._settled(self._world.gather(value, root=0))

    def allgather(self, value: T) -> list[T]:
        return self._settled(self._world.allgather(value))

    def _settled(self, result: T) -> T:
        self._world.barrier()
        return result


def connect(ranks: int) -> Comm:
    """Join the world of `ranks` ranks that the rule asked for.

    A wrong MPI type starts N worlds of one rank, silently, which would all write the same file;
    hence the world is counted. One rank needs no MPI at all.
    """
    if ranks == 1:
        return SerialComm()
    comm = MPIComm(_start(ranks).COMM_WORLD)
    if comm.size != ranks:
        raise EnvironmentProblem(
            f"the rule asked for {ranks} ranks, but this MPI world has {comm.size}; "
            "start the command with an mpiexec (or srun --mpi type) of the MPI family in use"
        )
    return comm


def _start(ranks: int) -> Any:
    """Start MPI and return mpi4py's module.

    Under a launcher that speaks PMIx only, mpich would end the process itself, with code 16 and
    lines that name its parameters; so that is looked at before.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI
    except ImportError as error:
        raise EnvironmentProblem(f"{ranks} ranks need mpi4py and an MPI library: {error}") from None
    if MPI.Is_initialized():
        return MPI
    only_pmix = "PMIX_RANK" in os.environ and not any(name in os.environ for name in _PMI)
    library = MPI.Get_library_version()
    if only_pmix and library.startswith("MPICH") and "pmix" not in library:
        raise EnvironmentProblem(
            f"{ranks} ranks were started by a launcher of another MPI family (it speaks PMIx, as "
            "Open MPI's mpiexec and srun --mpi=pmix do) and the MPI library here is mpich; start "
            "them with mpich's mpiexec or srun --mpi=pmi2"
        )
    MPI.Init_thread()
    return MPI


def share(items: Sequence[T], comm: Comm) -> list[T]:
    """Return this rank's share of the items: every size-th one, which balances sorted costs."""
    return list(items[comm.rank :: comm.size])


def on_first_rank(comm: Comm, work: Callable[[], T]) -> T:
    """Do `work` on rank 0 and give its result, or its error, to all ranks."""
    result: T | None = None
    problem: SkyproofError | None = None
    if comm.rank == 0:
        try:
            result = work()
        except SkyproofError as error:
            problem = error
        except OSError as error:
            problem = from_os_error(error)
    result, problem = comm.bcast((result, problem))
    if problem is not None:
        problem.collective = True
        raise problem
    return result  # type: ignore[return-value]
