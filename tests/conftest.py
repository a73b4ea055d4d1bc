"""Helpers of the tests: run a stage in a separate process, with a time limit."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from skyproof.core import numerics

ROOT = Path(__file__).parents[1]
LAUNCH_TIMEOUT_S = 300

# Two processes of pytest run one file of tests each. Long files start first, two files that need
# the same images do not start together, and files that mostly wait (SLURM) run beside others.
_ORDER = (
    *("containers/test_containers.py", "unit/core/test_portable.py", "cluster/", "containers/"),
    *("workflow/", "benchmarks/", ""),
)

# Tests compute in portable numerics, as stages do: other kernels may give other bits. The variables
# must be set before numpy and torch are loaded; commands that a test starts set them themselves.
KERNELS = {
    name: value
    for name, value in numerics.environment("portable", 1).items()
    if name not in numerics.environment("native", 1)
}
os.environ.update(KERNELS)

# Stages of tests/systems are found like those of the package.
_COMMAND = (
    "import sys, skyproof; skyproof.__path__.append({systems!r});"
    "from skyproof.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def clean_environment(**extra: str) -> dict[str, str]:
    """Return an environment with the programs of the venv and the package of this checkout."""
    here = {name: value for name, value in os.environ.items() if name not in KERNELS}
    environment = {**here, "PYTHONPATH": str(ROOT / "scripts"), **extra}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling torch costs seconds per process
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment


def skyproof(
    *words: str | Path,
    ranks: int = 1,
    cwd: Path | None = None,
    toy: bool = False,
    timeout: float = LAUNCH_TIMEOUT_S,
    sockets: Sequence[int] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m skyproof WORDS`; with `ranks` > 1 under mpiexec, which also adds --ranks."""
    program = (
        ["-c", _COMMAND.format(systems=str(ROOT / "tests/systems"))] if toy else ["-m", "skyproof"]
    )
    command = [sys.executable, *program, *map(str, words)]
    if ranks > 1:
        mpiexec = str(Path(sys.executable).parent / "mpiexec")
        command = [mpiexec, "-n", str(ranks), *command, "--ranks", str(ranks)]
    return launch(command, cwd=cwd, timeout=timeout, sockets=sockets, **environment)


def launch(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    timeout: float = LAUNCH_TIMEOUT_S,
    sockets: Sequence[int] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command with a time limit; return its output and exit code.

    It inherits the open `sockets`.
    """
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment(**environment),
        pass_fds=sockets,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def launched_without_answer() -> Iterator[tuple[dict[str, str], socket.socket, list[int]]]:
    """Yield the variables of a rank, the launcher's end of their socket, and the rank's end.

    The launcher does not answer, so MPI_Init does not return.
    """
    ours, its = socket.socketpair()
    with ours, its:
        variables = {"PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": str(its.fileno())}
        yield {**variables, "SKYPROOF_MPI_START_SECONDS": "1"}, ours, [its.fileno()]


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one error line of a failed command; fail if there is a traceback or none."""
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1, result.stderr
    return lines[0]


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, without resume logs and receipts."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".journal" not in path.parts
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that none of them runs alone at the end."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT / "tests").as_posix()
        return next(place for place, start in enumerate(_ORDER) if path.startswith(start))

    items.sort(key=place)


def cpu_seconds() -> float:
    """Return the processor time of this process and its finished child processes."""
    return sum(os.times()[:4])


class Times:
    """Seconds and processor seconds of each file of tests, over all processes of pytest."""

    def __init__(self) -> None:
        self.before = cpu_seconds()
        self.files: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the processor time since the last report, in the process that ran the test."""
        report = yield
        report.cpu = (now := cpu_seconds()) - self.before
        self.before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        totals = self.files[report.nodeid.partition("::")[0]]
        for i, value in enumerate((report.when == "call", report.duration, report.cpu)):
            totals[i] += value

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("times of the files of tests")
        terminalreporter.write_line("tests  seconds  CPU-seconds  file")
        for name, (n, wall, cpu) in sorted(self.files.items(), key=lambda item: -item[1][1]):
            terminalreporter.write_line(f"{n:5.0f}  {wall:7.1f}  {cpu:11.1f}  {name}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Times(), "times")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` fills once for all processes of pytest; the others wait."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, complete = base / name, base / f"{name}.whole"
    with open(base / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real inputs; skip if it is absent."""
    folder = Path(os.environ.get("SKYPROOF_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real inputs: {folder} is absent (set SKYPROOF_DATA)")
    return folder
