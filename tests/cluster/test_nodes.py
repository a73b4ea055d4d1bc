"""All systems on several nodes, on a SLURM whose nodes and controller stop and restart."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.cluster.conftest import Cluster, wait_for
from tests.conftest import ROOT, launch, one_line
from tests.workflow.conftest import TINY, TINY_SYSNET, root_of, without

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# Two groups of networks in a block, so that a training of SYSNet has something to share.
ALL = {
    **TINY,
    "sysnet": {
        **TINY_SYSNET["sysnet"],
        "train": {**TINY_SYSNET["sysnet"]["train"], "block_size": 2},
    },
}
LAUNCHER = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["default-resources"][
    "launcher"
]
OUTAGE_S = 3
on_cpus = pytest.mark.skipif(torch.version.cuda is not None, reason="torch is its CUDA build")


def test_all_systems_under_a_controller_that_restarts(cluster, tiny_all, tmp_path):
    """The bytes of the local run; MPI jobs on two nodes; no job is lost, and none is sent again
    that did not fail.
    """
    run = tmp_path / "run"
    # Two of these do not fit beside one another: one runs, one waits.
    large = ("--set-resources", "obiwan_simulate:mem_mb=20000")
    master = cluster.start(run, *large, config=ALL)
    look = lambda: states(cluster, run) >= {"RUNNING", "PENDING"}  # noqa: E731
    wait_for(look, "job that waits for another", pause=0.5)
    cluster.stop_controller()
    time.sleep(OUTAGE_S)
    cluster.control("ctld")
    code, output = cluster.end(master, timeout=800)
    assert code == 0, output
    assert root_of(run) == root_of(tiny_all)
    sent = re.findall(r"\(log: (\S+)/\d+\.log\)", output)
    assert len(sent) > 30
    assert len(sent) - len(set(sent)) == output.count("Trying to restart job")
    ranks = dict.fromkeys(("obiwan/simulate", "obiwan/cutouts", "obiwan/split", "obiwan/infer"), 4)
    ranks |= {f"sysnet/{region}/mock": 4 for region in ("north", "south")}
    ranks |= {f"sysnet/{region}/infer": 4 for region in ("north", "south")}
    ranks |= {f"sysnet/{region}/train": 2 for region in ("north", "south")}
    ranks |= {"obiwan/train": 2}
    for folder, wanted in ranks.items():
        receipts = (run / "results" / folder / ".journal").glob("*.receipt.json")
        jobs = [json.loads(path.read_text())["run"] for path in receipts]
        over = {(job["ranks"], job["environment"]["SLURM_STEP_NODELIST"]) for job in jobs}
        # Obiwan's bricks are assigned to the parts beside the split, by one process.
        assert over - {(1, "regular1"), (1, "regular2")} == {(wanted, "regular[1-2]")}, folder


def test_drained_nodes_are_reported_and_a_dead_one_is_replaced(cluster, tiny, untrained, tmp_path):
    """Two runs at once: a training on two nodes with requeue, an evaluation on one without.

    Nothing starts on drained nodes, and both say so. Then both run, and the node that holds the
    first process of each loses its power. The evaluation ends on the other node, as another job;
    the training waits for the node, says so, and ends as the same job.
    """
    single = without(tiny, tmp_path / "single", "evaluate")
    # Nodes are taken in the order of their weight.
    cluster.update("regular2", "weight=2")
    cluster.update("regular[1-2]", "state=drain", "reason=broken fan")
    try:
        both = (
            cluster.start(untrained),
            cluster.start(single, profile=str(no_requeue(tmp_path / "profile"))),
        )
        for run in (untrained, single):
            wait_for(
                lambda run=run: "broken fan]; the nodes are down" in said(run), "reason", pause=0.5
            )
        cluster.update("regular[1-2]", "state=resume")
        for run in (untrained, single):
            wait_for(lambda run=run: "RUNNING" in states(cluster, run), "running job", pause=0.2)
        jobs = [cluster.jobs(run)[-1] for run in (untrained, single)]
        assert [job.node for job in jobs] == ["regular1", "regular1"]
        cluster.control("crash", "regular1")

        code, output = cluster.end(both[1])
        assert code == 0, output
        ends = [job.state for job in cluster.jobs(single, "obiwan_evaluate")]
        assert ends == ["NODE_FAIL", "COMPLETED"]
        assert root_of(single) == root_of(tiny)

        told = lambda: "[regular1: Not responding]" in said(untrained)  # noqa: E731
        wait_for(told, "word of the dead node", timeout=300, pause=0.5)
        cluster.control("node", "regular1")
        code, output = cluster.end(both[0])
        assert code == 0, output
        assert [job.id for job in cluster.jobs(untrained, "obiwan_train")] == [jobs[0].id]
        assert "Restarts=1" in cluster.ask("scontrol", "show", "job", jobs[0].id)
        assert root_of(untrained) == root_of(tiny)
    finally:
        cluster.restore()


def states(cluster: Cluster, run: Path) -> set[str]:
    return {job.state for job in cluster.jobs(run)}


def no_requeue(folder: Path) -> Path:
    """Write the profile of a site that does not start jobs again by itself."""
    shutil.copytree(ROOT / "profiles/slurm", folder)
    text = (folder / "config.yaml").read_text()
    assert "slurm-requeue: true" in text
    (folder / "config.yaml").write_text(text.replace("slurm-requeue:", "slurm-no-requeue:"))
    return folder


def said(run: Path) -> str:
    """Return the output of Snakemake for a run so far."""
    return "".join(p.read_text() for p in (run / ".snakemake/log").glob("*.snakemake.log"))


@pytest.mark.parametrize(("nodes", "ranks"), [(1, 2), (1, 4), (2, 4)])
def test_training_gives_the_same_bytes_over_nodes_and_ranks(cluster, tiny, untrained, nodes, ranks):
    """The line of the rule under srun; two ranks on two nodes are in the whole run above."""
    line = line_of(tiny, "obiwan/train/.journal/model.safetensors", ranks=str(ranks))
    where = ["-p", "regular", f"--nodes={nodes}", f"--ntasks={ranks}"]
    done = launch(
        [*shlex.split(LAUNCHER), *where, *line],
        cwd=untrained,
        timeout=300,
        **cluster.environment,
    )
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "history.csv"):
        path = Path("results/obiwan/train") / name
        assert (untrained / path).read_bytes() == (tiny / path).read_bytes(), name


def line_of(run: Path, product: str, **changed: str) -> list[str]:
    """Return the command that made a product, as its receipt has it, with other values of words."""
    receipt = json.loads((run / "results" / f"{product}.receipt.json").read_text())
    words = shlex.split(receipt["run"]["command"])
    for name, value in changed.items():
        words[words.index(f"--{name}") + 1] = value
    return words


# Runs as three ranks on two nodes. Each says in a file that an exchange is over, and looks for the
# files of the others without going into MPI again.
EXCHANGE = """
import os, sys, time
from pathlib import Path
from skyproof.core.comm import connect
comm, here = connect(3), Path(sys.argv[1])
found = {
    "bcast": lambda: comm.bcast(os.environ["SLURM_JOB_ID"] if comm.rank == 0 else None),
    "gather": lambda: comm.gather(comm.rank),
    "local_rank": lambda: comm.local_rank,
}[sys.argv[2]]()
(here / str(comm.rank)).touch()
end = time.monotonic() + 30
while len(list(here.iterdir())) < 3:
    if time.monotonic() > end:
        sys.exit(f"rank {comm.rank}: others still wait for {sys.argv[2]}")
    time.sleep(0.01)
if sys.argv[2] == "local_rank" and str(found) != os.environ["SLURM_LOCALID"]:
    sys.exit(f"{found} is not {os.environ['SLURM_LOCALID']}")
"""


@pytest.mark.parametrize("exchange", ["bcast", "gather", "local_rank"])
def test_no_message_stays_behind_when_a_rank_leaves_mpi(cluster, tmp_path, exchange):
    """Else others would wait for it until it is done with its work, or, in gloo, for ever."""
    here = tmp_path / "here"
    here.mkdir()
    where = ["-p", "regular", "--nodes=2", "--ntasks=3"]
    words = [*shlex.split(LAUNCHER), *where, "python", "-c", EXCHANGE, here, exchange]
    done = launch(words, timeout=120, **cluster.environment)
    assert done.returncode == 0, done.stderr


@on_cpus
def test_a_job_that_asked_for_a_gpu_and_sees_none_stops(cluster, tiny, untrained):
    """The job runs on a node with GPUs, but torch sees none: exit 4 and one line."""
    gpu = ("device=cuda", "gpu=1", "gpu_model=a100", "tasks=1", "nodes=1", "mpi=")
    words = ("--set-resources", *(f"obiwan_train:{word}" for word in gpu), "--retries", "0")
    code, output = cluster.finish(untrained, *words)
    assert code == 1
    assert "Auto-selected partition 'gpu'" in output
    assert "error: device=cuda: this torch is the CPU build" in output
    line = line_of(tiny, "obiwan/train/.journal/model.safetensors", device="cuda")
    words = ["srun", "--partition=gpu", "--gpus=a100:1", *line]
    done = launch(words, cwd=untrained, **cluster.environment)
    assert [line for line in done.stderr.splitlines() if "srun: " not in line] == [
        "skyproof obiwan.train: error: device=cuda: this torch is the CPU build; use device=cpu, "
        "or the CUDA build (TORCH=cuda make run; TORCH=cuda make images)"
    ]
    assert done.returncode == 4


@on_cpus
@pytest.mark.parametrize(
    "product", ["tune/.journal/tuning.json", "train/.journal/block-00000.json"]
)
def test_so_does_sysnet(tiny_all, product):
    line = line_of(tiny_all, f"sysnet/north/{product}", device="cuda")
    done = launch(line, cwd=tiny_all)
    assert "device=cuda: this torch is the CPU build" in one_line(done)
    assert done.returncode == 4
