"""Start MPI, with a network provider that does not hang and with a time limit."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skyproof.core.errors import EnvironmentProblem

# The variable that sets the limit, and its default [s]. All ranks must arrive; the slowest may be
# loading libraries from a shared disk.
LIMIT_NAME = "SKYPROOF_MPI_START_SECONDS"
LIMIT_S = 300.0

# mpich finds its launcher by one of these.
_PMI = ("PMI_RANK", "PMI_FD", "PMI_PORT")


def leave(problem: EnvironmentProblem) -> None:
    """Print the message of `problem` and end the process with its exit code."""
    print(f"skyproof: error: {problem}", file=sys.stderr, flush=True)
    os._exit(problem.exit_code)


def start(what: str, give_up: Callable[[EnvironmentProblem], None]) -> Any:
    """Start MPI, unless it runs already, and return the module mpi4py.MPI.

    Error messages begin with `what` ("4 ranks"). A start that takes too long cannot be interrupted:
    `give_up` is called in another thread and must end the process.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI
    except ImportError as error:
        raise EnvironmentProblem(f"{what} need mpi4py and an MPI library: {error}") from None
    if not MPI.Is_initialized():
        _same_family(what, MPI.Get_library_version())
        # Without a faster network, mpich prefers libfabric's provider `sockets` to `tcp`. With
        # sockets, 9 of 600 starts of 3 + 1 ranks on two nodes did not finish; with tcp, all did.
        os.environ.setdefault("FI_PROVIDER", "^sockets")
        with _limited(what, give_up):
            _initialize(MPI)
    return MPI


def _same_family(what: str, library: str) -> None:
    # Under a launcher that supports PMIx only, mpich would end the process itself, with code 16 and
    # a message about its own parameters.
    only_pmix = "PMIX_RANK" in os.environ and not any(name in os.environ for name in _PMI)
    if only_pmix and library.startswith("MPICH") and "pmix" not in library:
        raise EnvironmentProblem(
            f"{what} were started by a launcher of another MPI family (it supports PMIx, as "
            "Open MPI's mpiexec and srun --mpi=pmix do) and the MPI library here is mpich; start "
            "them with mpich's mpiexec or srun --mpi=pmi2"
        )


@contextmanager
def _limited(what: str, give_up: Callable[[EnvironmentProblem], None]) -> Iterator[None]:
    try:
        seconds = float(os.environ.get(LIMIT_NAME, LIMIT_S))
    except ValueError:
        raise EnvironmentProblem(
            f"{LIMIT_NAME}={os.environ[LIMIT_NAME]}: expected a number of seconds"
        ) from None
    problem = EnvironmentProblem(
        f"{what} did not connect within {seconds:g} s ({LIMIT_NAME}): a rank did not start "
        "(see its log), or the nodes cannot reach one another over the network that MPI "
        "selected (MPIR_CVAR_DEBUG_SUMMARY=1 prints it)"
    )
    timer = threading.Timer(seconds, give_up, [problem])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _initialize(mpi: Any) -> None:
    # mpi4py's Init_thread keeps Python's lock, so that the timer thread could not run.
    provided = ctypes.c_int()
    library = ctypes.CDLL(mpi.__file__)
    code = library.MPI_Init_thread(None, None, mpi.THREAD_MULTIPLE, ctypes.byref(provided))
    if code != mpi.SUCCESS:
        raise EnvironmentProblem(f"MPI_Init: {mpi.Get_error_string(code)}")
    # As mpi4py does: MPI errors become exceptions.
    for comm in (mpi.COMM_WORLD, mpi.COMM_SELF):
        comm.Set_errhandler(mpi.ERRORS_RETURN)
