"""The start of MPI: with a network that does not hang, and not longer than a limit."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skyproof.core.errors import EnvironmentProblem

# The variable, and the seconds without it. All ranks have to come: the slowest may still read its
# libraries from a shared disk.
LIMIT_NAME = "SKYPROOF_MPI_START_SECONDS"
LIMIT_S = 300.0

# By one of these mpich finds its launcher.
_PMI = ("PMI_RANK", "PMI_FD", "PMI_PORT")


def leave(problem: EnvironmentProblem) -> None:
    """Say why, and end the process."""
    print(f"skyproof: error: {problem}", file=sys.stderr, flush=True)
    os._exit(problem.exit_code)


def start(what: str, give_up: Callable[[EnvironmentProblem], None]) -> Any:
    """Start MPI, unless it runs already, and return mpi4py's module.

    `what` begins the lines of errors ("4 ranks"). A start that takes too long cannot be
    interrupted: `give_up` is called in another thread and has to end the process.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI
    except ImportError as error:
        raise EnvironmentProblem(f"{what} need mpi4py and an MPI library: {error}") from None
    if not MPI.Is_initialized():
        _same_family(what, MPI.Get_library_version())
        # Where there is no faster network, mpich takes libfabric's `sockets` before its `tcp`. With
        # sockets 9 of 600 starts of 3 + 1 ranks on two nodes never ended, with tcp none.
        os.environ.setdefault("FI_PROVIDER", "^sockets")
        with _limited(what, give_up):
            _initialize(MPI)
    return MPI


def _same_family(what: str, library: str) -> None:
    # Under a launcher that speaks PMIx only, mpich would end the process itself, with code 16 and
    # lines that name its parameters.
    only_pmix = "PMIX_RANK" in os.environ and not any(name in os.environ for name in _PMI)
    if only_pmix and library.startswith("MPICH") and "pmix" not in library:
        raise EnvironmentProblem(
            f"{what} were started by a launcher of another MPI family (it speaks PMIx, as "
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
        f"{what} did not find one another within {seconds:g} s ({LIMIT_NAME}): a rank never came "
        "(its own log says why), or the nodes do not reach one another over the network that MPI "
        "chose (MPIR_CVAR_DEBUG_SUMMARY=1 shows which)"
    )
    timer = threading.Timer(seconds, give_up, [problem])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _initialize(mpi: Any) -> None:
    # Not mpi4py's Init_thread, which keeps Python's lock: no thread could count the seconds.
    provided = ctypes.c_int()
    library = ctypes.CDLL(mpi.__file__)
    code = library.MPI_Init_thread(None, None, mpi.THREAD_MULTIPLE, ctypes.byref(provided))
    if code != mpi.SUCCESS:
        raise EnvironmentProblem(f"MPI_Init: {mpi.Get_error_string(code)}")
    # As mpi4py does: errors of MPI become exceptions.
    for comm in (mpi.COMM_WORLD, mpi.COMM_SELF):
        comm.Set_errhandler(mpi.ERRORS_RETURN)
