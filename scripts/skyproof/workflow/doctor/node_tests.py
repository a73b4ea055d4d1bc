"""One short test job of `doctor` on each kind of node."""

from __future__ import annotations

import json
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.code import package_digest
from skyproof.workflow.doctor.findings import Finding, fail, ok, warn
from skyproof.workflow.doctor.local import judge_world, launcher_words
from skyproof.workflow.plan.dryrun import SNAKEFILE, DryRun
from skyproof.workflow.slurm import client, sbatch_args
from skyproof.workflow.slurm.client import NodeGroup

_MINUTES, _MEGABYTES = 5, 3000
_EVERY_S = 0.3
_SKEW_S = 2.0  # Snakemake compares file times to decide which jobs to run
_WAITING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")


@dataclass
class NodeTest:
    """A test job on one kind of node."""

    name: str
    words: list[str]  # arguments of sbatch
    ranks: int
    with_gpu: bool
    folder: Path
    number: str = ""
    sent: float = 0.0
    ended: float = 0.0  # when its end was observed
    state: str = ""
    found: list[dict[str, Any]] = field(default_factory=list)  # what its ranks wrote
    seen: float = 0.0  # when all of that was readable here

    @property
    def log(self) -> Path:
        return self.folder / "log"


def examine(
    run: DryRun,
    declared: Sequence[Any],
    there: Sequence[NodeGroup],
    broken: set[str],
    patience: float,
) -> Iterator[Finding]:
    """Submit a test job to each kind of node, all at once, and yield the findings."""
    folder = run.folder / ".snakemake" / f"doctor-{uuid.uuid4().hex[:8]}"
    tests = [
        test
        for test in kinds(run, declared, there, folder)
        if not broken & {test.name}  # reported already
    ]
    launcher = launcher_words(run)
    try:
        for test in tests:
            test.folder.mkdir(parents=True)
            try:
                test.number = client.submit(test.words, line_of(test, launcher), test.log)
                test.sent = time.time()
            except EnvironmentProblem as error:
                yield fail(f"job on {test.name}", str(error), "see the lines above")
        sent = [test for test in tests if test.number]
        wait(sent, patience, float(run.arguments.latency_wait or 5))
        wanted = any(job.gpus for job in run.jobs)
        for test in sent:
            yield from judge(test, shlex.join(launcher), package_digest(), wanted)
    finally:
        for test in tests:
            if test.number and not test.ended and not test.found:
                client.cancel_job(test.number)
        shutil.rmtree(folder, ignore_errors=True)


def kinds(
    run: DryRun, declared: Sequence[Any], there: Sequence[NodeGroup], folder: Path
) -> Iterator[NodeTest]:
    """Yield a test for each kind of node: first those of the jobs, then the other partitions."""
    counts = {name: sum(n.count for n in there if n.partition == name) for name in _names(there)}
    limits = {found.name: found.limits for found in declared}
    seen: set[tuple[str, ...]] = set()
    for job in run.jobs:
        if not (job.benchmark or job.outputs):
            continue
        name = sbatch_args.best(declared, job) or ""
        if declared and not name:
            continue
        site = {
            "-p": name,
            "-C": str(job.resources.get("constraint") or ""),
            "-q": str(job.resources.get("qos") or ""),
            "-A": str(job.resources.get("slurm_account") or ""),
            "--gpus": _gpus(job.resources) if job.gpus else "",
        }
        if tuple(site.values()) in seen:
            continue
        seen.add(tuple(site.values()))
        yield _test(site, counts.get(name, 2), limits.get(name), folder / str(len(seen)))
    used = {found[0] for found in seen}
    accounts = (job.resources.get("slurm_account") for job in run.jobs)
    account = next((str(found) for found in accounts if found), "")
    for name, limit in limits.items():
        if name not in used:
            site = {"-p": name, "-A": account, "--gpus": "1" if limit.max_gpu else ""}
            yield _test(site, counts.get(name, 1), limit, folder / name)


def _names(there: Sequence[NodeGroup]) -> set[str]:
    return {found.partition for found in there}


def _gpus(resources: Any) -> str:
    model = resources.get("gpu_model")
    return f"{model}:1" if model else "1"


def _test(site: dict[str, str], count: int, limits: Any, folder: Path) -> NodeTest:
    """Return a test: two ranks, on two nodes if possible; one rank where MPI is not allowed."""
    alone = bool(site.get("--gpus")) or (limits is not None and not limits.supports_mpi)
    ranks = 1 if alone else 2
    most = getattr(limits, "max_nodes", count)
    nodes = int(min(ranks, count, most))
    words = [f"--nodes={nodes}", f"--ntasks={ranks}", f"--mem={_MEGABYTES}", "-t", str(_MINUTES)]
    for flag, value in site.items():
        words += ([f"{flag}={value}"] if flag.startswith("--") else [flag, value]) if value else []
    named = [value for flag, value in site.items() if value and flag in ("-p", "-C")]
    return NodeTest(
        " ".join(named) or "the default partition", words, ranks, bool(site.get("--gpus")), folder
    )


def line_of(test: NodeTest, launcher: Sequence[str]) -> str:
    """Return the shell command of a test job, started like the commands of rules."""
    program = ["python", "-m", "skyproof.workflow.doctor.probe", str(test.folder)]
    if test.with_gpu:
        program.append("gpu")
    if test.ranks > 1:
        program = [*launcher, "-n", str(test.ranks), *program]
    scripts = shlex.quote(str(SNAKEFILE.parent / "scripts"))
    return f"export PYTHONPATH={scripts}; {shlex.join(program)}"


def wait(tests: Sequence[NodeTest], patience: float, latency: float) -> None:
    """Wait until each test has written its files or ended, for at most `patience` seconds."""
    end = time.monotonic() + patience
    left = list(tests)
    while left and time.monotonic() < end:
        for test in left:
            files = list(test.folder.glob("*.json"))
            if len(files) >= test.ranks:
                test.found = [json.loads(path.read_text("utf-8")) for path in files]
                test.seen = time.time()
            elif not test.ended:
                known = client.job(test.number)
                test.state = known.get("JobState", "")
                if test.state not in _WAITING:
                    test.ended = time.time()
                elif test.state == "PENDING":
                    test.state = f"PENDING ({known.get('Reason', '')})"
        # The files of a job that has ended may appear later.
        left = [
            test
            for test in left
            if not test.found and not (test.ended and time.time() > test.ended + latency)
        ]
        if left:
            time.sleep(_EVERY_S)


def judge(test: NodeTest, launcher: str, package: str, gpu_wanted: bool) -> Iterator[Finding]:
    """Yield the findings of a test job on its kind of node."""
    on = f"on {test.name}"
    if not test.found:
        yield _lost(test, launcher)
        return
    nodes = ", ".join(sorted({found["node"] for found in test.found}))
    delay = max(test.seen - max(found["time"] for found in test.found), 0)
    yield ok(f"files {on}", f"what {nodes} wrote was seen here within {delay:.1f} s")
    if test.ranks > 1:
        yield world(test, on, launcher)
    yield code(test, on, package)
    yield clock(test, on)
    if test.with_gpu:
        yield gpu(test, on, gpu_wanted)


def _lost(test: NodeTest, launcher: str) -> Finding:
    """Return why there is no file: the job waits, failed, or wrote to an unshared folder."""
    what = f"job on {test.name}"
    if not test.ended:
        if test.state.startswith("PENDING"):
            return warn(
                what, f"still waits: {test.state}", "try again, or with a longer --patience"
            )
        return fail(what, f"{test.state or 'not known'}, and no end", "see squeue; --patience")
    try:
        said = [
            line for line in test.log.read_text("utf-8", "replace").splitlines() if line.strip()
        ]
    except OSError:
        said = []
    if test.state != "COMPLETED" and said:
        cause = next((line for line in said if "Error" in line or "error" in line), said[-1])
        remedy = "python and the package must be there too: activate .venv before, on a shared disk"
        if "mpi" in cause.lower() or "pmi" in cause.lower():
            remedy = f"correct launcher in the profile ({launcher}; types: {client.mpi_types()})"
        return fail(what, f"{test.state}: {cause.strip()}", remedy)
    return fail(
        what,
        f"{test.state or 'ended'}, but its files are not seen here within latency-wait",
        "the working folder must be shared by all nodes; raise latency-wait in the profile",
    )


def world(test: NodeTest, on: str, launcher: str) -> Finding:
    """Check that the ranks are one MPI world."""
    line = judge_world(launcher, test.found, test.ranks)
    remedy = f"correct launcher in the profile (--mpi types here: {client.mpi_types()})"
    return Finding(line.verdict, f"mpi {on}", line.found, remedy if line.verdict == "fail" else "")


def code(test: NodeTest, on: str, package: str) -> Finding:
    """Check that the nodes import this checkout."""
    others = sorted({f["node"] for f in test.found if f["package"] != package})
    if others:
        remedy = "the checkout must be seen under the same path"
        return fail(f"package {on}", f"{', '.join(others)} import another one", remedy)
    pythons = ", ".join(sorted({found["python"] for found in test.found}))
    return ok(f"package {on}", f"the same as here, Python {pythons}")


def clock(test: NodeTest, on: str) -> Finding:
    """Compare the nodes' clocks with the local one, within the limits of the job's times."""
    late = max(found["time"] - test.seen for found in test.found)
    early = max(test.sent - found["time"] for found in test.found)
    skew = max(late, early)
    if skew > _SKEW_S:
        way = "before" if late >= early else "behind"
        remedy = (
            "file times decide which jobs run: ask for NTP, or use --rerun-triggers without mtime"
        )
        return warn(f"clock {on}", f"at least {skew:.0f} s {way} the one here", remedy)
    return ok(f"clock {on}", "agrees with the one here")


def gpu(test: NodeTest, on: str, wanted: bool) -> Finding:
    """Check that torch sees the GPU that a job asked for."""
    found = test.found[0]["gpu"]
    if found.get("seen"):
        return ok(f"gpu {on}", ", ".join(found["seen"]))
    given = f"SLURM gave number {found['given']}" if found.get("given") else "SLURM gave none"
    why = found.get("problem") or "torch sees none: no driver, or one older than torch's CUDA"
    remedy = "TORCH=cuda make venv, and a node with a driver"
    if wanted:
        return fail(f"gpu {on}", f"{given}; {why}", remedy)
    return warn(f"gpu {on}", f"{given}; {why}", f"no job asks for one; else {remedy}")
