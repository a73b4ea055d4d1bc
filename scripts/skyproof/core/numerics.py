"""Environment variables that determine numerical results: threads, CPU kernels, locale, hash seed.

Libraries read these variables when they start. Therefore the command sets them and re-executes
itself once, under every launcher, in every container and at every site.
"""

from __future__ import annotations

import os
import sys

_ALWAYS = {
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "0",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "MPLBACKEND": "agg",
}

# The AVX2 code path of every library, which all x86-64 CPUs of the last decade have.
_PORTABLE = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V4,AVX512_ICL,AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}


def threads_of(profile: str, threads: int) -> int:
    """Return the number of threads of a rank: one in `portable`, because more change the bits."""
    return 1 if profile == "portable" else max(1, threads)


def environment(profile: str, threads: int) -> dict[str, str]:
    """Return the variables of a numerics profile for a rank with `threads` threads."""
    count = str(threads_of(profile, threads))
    variables = dict(_ALWAYS)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        variables[name] = count
    if profile == "portable":
        variables |= _PORTABLE
    return variables


def enforce(profile: str, threads: int) -> None:
    """Re-execute this process once with the variables of the profile, unless they are set.

    Call this before numpy is imported. The process keeps its identifier, so launchers that watch it
    (mpiexec, srun) are not affected.
    """
    wanted = environment(profile, threads)
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
