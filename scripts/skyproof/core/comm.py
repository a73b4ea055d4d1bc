"""The communicator of a stage: mpi4py's, or a serial one with the same small interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar

from skyproof.core import mpi
from skyproof.core.errors import EnvironmentProblem, SkyproofError, from_os_error

T = TypeVar("T")


class Comm(Protocol):
    """The methods of a communicator that stages use."""

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
    """All ranks of the MPI world. Objects are sent pickled, which suffices for names and counts."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.rank = int(world.Get_rank())
        self.size = int(world.Get_size())

    @cached_property
    def local_rank(self) -> int:
        """Collective: all ranks must access it, or none."""
        from mpi4py import MPI

        return int(self._world.Split_type(MPI.COMM_TYPE_SHARED).Get_rank())

    def barrier(self) -> None:
        self._world.barrier()

    # Each of these ends with a barrier. Without it, a rank may return before its message was sent.
    # Seen with mpich (ofi) between two nodes: a few bytes of a bcast or gather arrived only when
    # the sender called MPI again. Other ranks waited until the sender finished its work. A
    # training, whose ranks wait for one another outside MPI (gloo), never started.
    def bcast(self, value: T) -> T:
        return self._settled(self._world.bcast(value, root=0))

    def gather(self, value: T) -> list[T] | None:
        return self._settled(self._world.gather(value, root=0))

    def allgather(self, value: T) -> list[T]:
        return self._settled(self._world.allgather(value))

    def _settled(self, result: T) -> T:
        self._world.barrier()
        return result


def connect(ranks: int, give_up: Callable[[EnvironmentProblem], None] = mpi.leave) -> Comm:
    """Return the communicator of the `ranks` ranks that the rule requested.

    With a wrong MPI type, N worlds of one rank start without an error, and all would write the same
    file. Raise EnvironmentProblem if the size of the world differs from `ranks`. One rank needs no
    MPI. `give_up` ends the process when MPI does not start (core/mpi.py).
    """
    if ranks == 1:
        return SerialComm()
    comm = MPIComm(mpi.start(f"{ranks} ranks", give_up).COMM_WORLD)
    if comm.size != ranks:
        raise EnvironmentProblem(
            f"the rule requested {ranks} ranks, but this MPI world has {comm.size}; "
            "start the command with an mpiexec (or srun --mpi type) of the MPI family in use"
        )
    return comm


def share(items: Sequence[T], comm: Comm) -> list[T]:
    """Return every size-th item, from this rank's index on; this balances sorted costs."""
    return list(items[comm.rank :: comm.size])


def on_first_rank(comm: Comm, work: Callable[[], T]) -> T:
    """Call `work` on rank 0; return its result, or raise its error, on all ranks.

    Errors are SkyproofError, marked as collective, and OSError as EnvironmentProblem. Any other
    exception is raised on rank 0 only.
    """
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
        raise type(problem).again(str(problem), collective=True) from problem
    return result  # type: ignore[return-value]
