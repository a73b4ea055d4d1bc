"""The tool `doctor` checks whether a site, or this machine, is ready for the first job."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence

from skyproof.core.errors import EnvironmentProblem, SkyproofError
from skyproof.workflow.doctor import cluster, local
from skyproof.workflow.doctor.findings import Finding, fail, ok, warn
from skyproof.workflow.plan import forecast
from skyproof.workflow.plan.dryrun import DryRun, dry_run

_PATIENCE_S = 120.0


def doctor(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Print one line per check; return 4 if one failed."""
    parser.allow_abbrev = False
    parser.epilog = (
        "All other arguments are Snakemake's: --profile, --configfile, --directory, ... "
        "exit codes: 0 no check failed, 4 a check failed"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=_PATIENCE_S,
        metavar="SECONDS",
        help="how long a test job may wait in the queue, and run [120]",
    )
    given, rest = parser.parse_known_args(words)
    failed = 0
    for line in examine(rest, given.patience):
        print(line, flush=True)
        failed += line.verdict == "fail"
    return EnvironmentProblem.exit_code if failed else 0


def examine(words: Sequence[str], patience: float) -> Iterator[Finding]:
    """Yield the findings on the site that Snakemake's arguments select (default: this machine)."""
    try:
        run = dry_run([*words, "--forceall"])
    except SkyproofError as error:
        yield fail("workflow", str(error), "correct the profile or the configuration")
        return
    yield ok("workflow", f"plans {len(run.jobs)} jobs for executor {run.executor}")
    yield from _folder(run)
    if run.executor == "slurm":
        yield from cluster.examine(run, patience)
    else:
        yield from local.examine(run, patience)


def _folder(run: DryRun) -> Iterator[Finding]:
    """Check that the working folder is writable and has space for the products."""
    folder = run.folder.resolve()
    if not os.access(folder, os.W_OK):
        yield fail("folder", f"{folder} cannot be written", "start in another, or --directory")
        return
    room = shutil.disk_usage(folder).free / 1e9
    wanted = sum(item.megabytes for item in forecast.estimate(run, {})) / 1e3
    found = f"{folder}: {room:,.0f} GB free, an estimated {wanted:,.1f} GB needed"
    if wanted > room:
        yield fail("folder", found, "take a larger file system (--directory)")
    elif wanted > 0.8 * room:
        yield warn("folder", found, "it may fill up")
    else:
        yield ok("folder", found)
