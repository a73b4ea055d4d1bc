"""Failures of jobs and masters, and errors that a user must fix: the final root is the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml

from skyproof.workflow.config import load
from skyproof.workflow.plan.systems import plan_of
from tests.cluster.conftest import Cluster, wait_for
from tests.conftest import ROOT
from tests.processes import words_of
from tests.workflow.conftest import TINY, root_of, small_disk

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TRAINING = "logs/obiwan/train.log"


def test_jobs_that_are_too_slow_cancelled_or_too_big(cluster, tiny, untrained):
    """Each is retried; a training resumes, and memory doubles, as configured by a site."""
    master = cluster.start(
        untrained, "--set-resources", "obiwan_infer:mem_mb=600 * 2 ** (attempt - 1)"
    )
    steps = []
    for end in (("scontrol", "update", "EndTime=now", "JobId={}"), ("scancel", "{}")):
        job = cluster.running(untrained, "obiwan_train")
        steps.append(hold_training(untrained, after=max(steps, default=0)))
        cluster.ask(*(word.format(job) for word in end))
        wait_for(lambda job=job: ended(cluster, untrained, job), f"end of job {job}")
    code, output = cluster.end(master)
    assert code == 0, output
    states = [job.state for job in cluster.jobs(untrained, "obiwan_train")]
    assert states == ["TIMEOUT", "CANCELLED", "COMPLETED"]
    for state in states[:2]:
        assert f"failed, SLURM status is: '{state}'" in output
    assert f"resuming after step {steps[0]} of 12" in output
    assert f"resuming after step {steps[1]} of 12" in (untrained / TRAINING).read_text()
    infer = [(job.state, job.memory) for job in cluster.jobs(untrained, "obiwan_infer")]
    assert infer[0] == ("FAILED", "600M")
    assert infer[-1] in [("COMPLETED", "1200M"), ("COMPLETED", "2400M")]
    assert "exceeded memory limit" in output
    assert root_of(untrained) == root_of(tiny)


def test_masters_that_are_interrupted_ended_and_killed(cluster, tiny, untrained):
    """One after the other in one folder: never two jobs for one file, and no --unlock."""
    first = cluster.start(untrained)
    interrupted = cluster.running(untrained, "obiwan_train")
    step = hold_training(untrained)
    first.send_signal(signal.SIGINT)
    assert cluster.end(first)[0] == 1
    # It cancels its jobs itself. Asked to end, the next one lets its job end and starts no more.
    second = cluster.start(untrained)
    cluster.running(untrained, "obiwan_train")
    held = hold(untrained, "obiwan.train")
    second.send_signal(signal.SIGTERM)
    code, output = cluster.finish(untrained)
    assert code == 1
    assert f"process {second.pid} on" in output
    for rank in held:
        os.kill(rank, signal.SIGCONT)
    assert cluster.end(second)[0] == 1
    assert f"resuming after step {step} of 12" in (untrained / TRAINING).read_text()
    assert not cluster.jobs(untrained, "obiwan_infer")
    # Killed, it leaves its job; the next one cancels that before it starts anything.
    third = cluster.start(untrained)
    orphan = cluster.running(untrained, "obiwan_infer")
    hold(untrained, "obiwan.infer")
    third.kill()
    third.communicate()
    code, output = cluster.finish(untrained)
    assert code == 0, output
    assert f"cancelled job {orphan} (obiwan_infer) of an earlier run whose master" in output
    states = {job.id: job.state for job in cluster.jobs(untrained)}
    assert [states.pop(interrupted), states.pop(orphan)] == ["CANCELLED", "CANCELLED"]
    assert set(states.values()) == {"COMPLETED"}
    assert_one_at_a_time(cluster, untrained)
    assert root_of(untrained) == root_of(tiny)


def test_a_full_disk_is_reported_in_one_line(cluster, tiny, untrained):
    """The first checkpoint fits and the second does not; with more space the training resumes."""
    results, aside = untrained / "results", untrained / "aside"
    results.rename(aside)
    results.mkdir()
    size = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
    with small_disk(results, size + (8 << 20)):
        shutil.copytree(aside, results, dirs_exist_ok=True)
        code, output = cluster.finish(untrained, "--retries", "0")
        assert code == 1
        (line,) = re.findall(r"^skyproof .*error: .*$", output, re.MULTILINE)
        assert re.search(r"/step-0*4\.safetensors: No space left on device; free disk space", line)
        subprocess.run(["mount", "-o", f"remount,size={3 * size}", results], check=True)
        code, output = cluster.finish(untrained)
        assert code == 0, output
        assert "resuming after step 2 of 12" in (untrained / TRAINING).read_text()
        assert root_of(untrained) == root_of(tiny)


def test_a_bad_file_is_processed_once(cluster, tiny, unevaluated):
    """Further attempts of the same run repeat the message; the next run reads the file again."""
    scores = unevaluated / "results/obiwan/infer/scores.parquet"
    good, times = scores.read_bytes(), scores.stat()
    bad = pd.read_parquet(scores)
    bad.loc[3, "score"] = float("nan")
    bad.to_parquet(scores)
    code, output = cluster.finish(unevaluated, "--retries", "1")
    assert code == 1
    lines = re.findall(r"^skyproof obiwan.evaluate: error: (.*)$", output, re.MULTILINE)
    assert "scores.parquet, record row 3, field score: is nan" in lines[0]
    assert lines[1:] == [f"{lines[0]} (found by an earlier attempt)"]
    scores.write_bytes(good)
    os.utime(scores, ns=(times.st_atime_ns, times.st_mtime_ns))
    code, output = cluster.finish(unevaluated)
    assert code == 0, output
    assert root_of(unevaluated) == root_of(tiny)


def test_amounts_double_up_to_what_a_node_gives(cluster, untrained):
    """Memory and time limits of the rules and of a site."""
    mine = (
        "obiwan_train:mem_mb=5000 * 2 ** (attempt - 1)",
        "obiwan_train:runtime=120 * 2 ** (attempt - 1)",
        "obiwan_infer:mem_mb=30000 * 2 ** (attempt - 1)",
        "obiwan_infer:runtime=1440",
    )
    words = ("-n", "--attempt", "3", "--set-resources", *mine)
    code, output = cluster.finish(untrained, *words)
    assert code == 0, output
    found = re.findall(r"^rule (\w+):$.*?^    resources: (.*?)$", output, re.MULTILINE | re.DOTALL)
    planned = {rule: dict(re.findall(r"(mem_mb|runtime)=(\d+)", line)) for rule, line in found}
    site = yaml.safe_load((ROOT / "profiles/slurm/partitions.yaml").read_text())["partitions"]
    most = [str(max(p[name] for p in site.values())) for name in ("max_mem_mb", "max_runtime")]
    assert planned["obiwan_train"] == {"mem_mb": "20000", "runtime": "480"}
    assert planned["obiwan_infer"] == {"mem_mb": most[0], "runtime": most[1]}
    cost = plan_of("obiwan", load(TINY).obiwan).cost("evaluate", {})
    limit = str(int(4 * cost.limit_minutes))
    assert planned["obiwan_evaluate"] == {"mem_mb": "8000", "runtime": limit}


def hold_training(run: Path, after: int = 0) -> int:
    """Stop the training behind a checkpoint beyond step `after`; return the checkpoint's step."""

    def newest() -> int:
        found = (run / "results/obiwan/train/ckpts").glob("*/step-*.safetensors")
        return max((int(path.stem.removeprefix("step-")) for path in found), default=0)

    wait_for(lambda: newest() > after, f"checkpoint after step {after}")
    hold(run, "obiwan.train")
    return newest()


def hold(run: Path, stage: str) -> list[int]:
    """Stop the ranks of a stage, as soon as there are any, and return them.

    Its job does not end before they go on.
    """
    found = wait_for(lambda: ranks(run, stage), f"rank of {stage}")
    for rank in found:
        os.kill(rank, signal.SIGSTOP)
    return found


def ranks(run: Path, stage: str) -> list[int]:
    found = []
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        if words_of(pid)[1:4] == [b"-m", b"skyproof", stage.encode()]:
            try:
                if Path(f"/proc/{pid}/cwd").resolve() == run:
                    found.append(pid)
            except OSError:
                continue
    return found


def ended(cluster: Cluster, run: Path, number: str) -> bool:
    (job,) = (job for job in cluster.jobs(run) if job.id == number)
    return job.state not in ("RUNNING", "COMPLETING")


def assert_one_at_a_time(cluster: Cluster, run: Path) -> None:
    """No two jobs for the same files may overlap."""
    jobs = cluster.jobs(run)
    for purpose in {job.purpose for job in jobs}:
        turns = sorted((job.start, job.end) for job in jobs if job.purpose == purpose)
        for (_, end), (start, _) in pairwise(turns):
            assert end <= start, f"{purpose}: {turns}"
