"""Each line of `doctor` when it fails, with stand-ins for SLURM and the nodes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.code import package_digest
from skyproof.workflow.config import load
from skyproof.workflow.doctor import checks, cluster, local, node_tests
from skyproof.workflow.doctor.findings import Finding
from skyproof.workflow.plan.dryrun import DryRun, PlannedJob
from skyproof.workflow.slurm import client
from tests.conftest import launch, launched_without_answer

SINFO = """\
regular|up|1-00:00:00|2|8|32000|cpu,haswell|(null)|idle
knl|up|12:00:00|1|68|96000+|knl,quad,cache|(null)|mixed
knl|up|12:00:00|1|68|96000|knl,flat|(null)|drained*
gpu|up|infinite|1|16|32000|gpu,a100|gpu:a100:2(S:0-1)|idle
old|down|1:30|4|4|8000|(null)|(null)|down*
broken|up|1:30|4|4|8000|(null)|(null)|drained
"""


@pytest.fixture
def there(monkeypatch) -> list[client.NodeGroup]:
    monkeypatch.setattr(client, "ask", lambda *words, timeout=60: SINFO)
    return client.nodes()


def run(*jobs: PlannedJob, executor: str = "slurm", folder: Path = Path(), **arguments) -> DryRun:
    made = SimpleNamespace(latency_wait=1, software_deployment_method=set(), **arguments)
    return DryRun(list(jobs), load({}), folder, executor, 100, arguments=made)


def job(rule: str = "obiwan_train", **resources) -> PlannedJob:
    asked = {"mem_mb": 1000, "runtime": 10, "launcher": "srun --mpi=pmi2", **resources}
    return PlannedJob(rule, {}, (), ("x",), f"logs/benchmarks/obiwan/{rule[7:]}.tsv", 1, asked)


def said(line: Finding) -> str:
    return str(line)


# --- what sinfo prints --------------------------------------------------------------------------


def test_nodes_are_read_from_sinfo(there):
    regular, knl, flat, gpu, old, _ = there
    assert (regular.minutes, regular.count, regular.cores) == (1440, 2, 8)
    assert (knl.minutes, knl.memory_mb, flat.state) == (720, 96000, "drained")
    assert knl.features == {"knl", "quad", "cache"}
    assert (gpu.minutes, gpu.gpus) == (float("inf"), {"a100": 2})
    assert (old.is_up, old.minutes, old.features, old.gpus) == (False, 1.5, frozenset(), {})


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:4", {"": 4}),
        ("gpu:a100:2,gpu:v100:1", {"a100": 2, "v100": 1}),
        ("shard:8,gpu:2(IDX:0-1)", {"": 2}),
        ("(null)", {}),
    ],
)
def test_gpus_are_read_from_generic_resources(monkeypatch, gres, found):
    line = f"p|up|1:00|1|1|1|f|{gres}|idle"
    monkeypatch.setattr(client, "ask", lambda *words, timeout=60: line)
    assert client.nodes()[0].gpus == found


# --- partitions.yaml against the cluster --------------------------------------------------------


def declared(name: str, **limits):
    from snakemake_executor_plugin_slurm.partitions import Partition, PartitionLimits

    return Partition(name, PartitionLimits(**limits))


@pytest.mark.parametrize(
    ("name", "limits", "problem"),
    [
        (
            "mic",
            {},
            "partition mic: is not on this cluster, which has broken, gpu, knl, old, regular",
        ),
        ("old", {}, "is closed"),
        ("broken", {}, "all its nodes are drained"),
        ("regular", {"max_runtime": 1441}, "max_runtime 1441, there are 1440"),
        ("regular", {"max_mem_mb": 64000}, "max_mem_mb 64000, there are 32000"),
        ("regular", {"max_threads": 16}, "max_threads 16, there are 8"),
        ("regular", {"max_nodes": 3}, "max_nodes 3, there are 2"),
        ("regular", {"max_gpu": 1}, "max_gpu 1, there are 0"),
        ("regular", {"available_constraints": ["knl"]}, "feature knl, there are cpu, haswell"),
        ("gpu", {"available_gpu_models": ["v100"]}, "GPU model v100, there are a100"),
    ],
)
def test_a_partition_that_is_not_what_the_file_says(there, name, limits, problem):
    line = cluster.partition(declared(name, **limits), there, "partitions.yaml")
    assert line.verdict == "fail"
    assert problem in said(line)
    assert line.remedy


def test_a_partition_as_the_file_says(there):
    found = declared("knl", max_runtime=720, max_threads=68, max_nodes=2, max_mem_mb=96000,
                     available_constraints=["quad"])  # fmt: skip
    line = cluster.partition(found, there, "partitions.yaml")
    assert said(line).startswith(
        "ok    partition knl: 2 nodes, 68 cores, 96 GB, cache,flat,knl,quad"
    )


# --- status command, rejections -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "storage", "problem"),
    [
        ({"status_command": "sacct"}, "none", "keeps no accounts"),
        ({"status_command": "sacct"}, "slurmdbd", "counts as running for ever"),
        ({"array_jobs": "all"}, "none", "deletes valid outputs"),
        ({"init_seconds_before_status_checks": 200}, "none", "squeue forgets a job"),
    ],
)
def test_settings_that_lose_jobs(monkeypatch, changed, storage, problem):
    config = {"AccountingStorageType": f"accounting_storage/{storage}", "MinJobAge": "300 sec"}
    monkeypatch.setattr(client, "settings", lambda: config)
    sound = {"array_jobs": "", "logdir": None, "status_command": "squeue"}
    settings = {**sound, "init_seconds_before_status_checks": 20, **changed}
    line = cluster.status(SimpleNamespace(**settings), config)
    assert line.verdict == "fail"
    assert problem in said(line)
    assert "use " in line.remedy or "raise block_size" in line.remedy
    settings = SimpleNamespace(**sound, init_seconds_before_status_checks=20)
    assert cluster.status(settings, config).verdict == "ok"


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("allocation failure: Invalid account or account/partition combination", "slurm_account"),
        ("error: invalid partition specified: nope", "partitions.yaml"),
        ("allocation failure: Invalid feature specification", "constraint"),
        ("allocation failure: Invalid qos specification", "qos"),
        ("allocation failure: Requested node configuration is not available", "gpu_model"),
        ("allocation failure: Requested time limit is invalid", "max_runtime"),
    ],
)
def test_arguments_that_slurm_rejects_are_named(monkeypatch, message, word):
    def reject(words):
        raise EnvironmentProblem(f"sbatch: {message}")

    monkeypatch.setattr(client, "would_accept", reject)
    (line,) = cluster.rejected_jobs(run(job(), job()), [])
    assert line.what == "jobs of obiwan_train"
    assert message in line.found
    assert word in line.remedy


@pytest.mark.parametrize(
    ("rejected", "what"),
    [
        ({"obiwan_infer"}, "obiwan_infer"),
        ({"obiwan_infer", "obiwan_train"}, "obiwan_infer and 1 more"),
        ({"obiwan_infer", "obiwan_train", "obiwan_split"}, "all rules"),
    ],
)
def test_rules_rejected_for_the_same_reason_share_a_line(monkeypatch, rejected, what):
    def judge(words):
        if words[0] in rejected:
            raise EnvironmentProblem("sbatch: Invalid account")

    monkeypatch.setattr(client, "would_accept", judge)
    monkeypatch.setattr(cluster.sbatch_args, "words", lambda job, declared: [job.rule])
    jobs = [job(rule) for rule in ("obiwan_infer", "obiwan_split", "obiwan_train")]
    (line,) = cluster.rejected_jobs(run(*jobs), [])
    assert line.what == f"jobs of {what}"


def test_a_job_that_fits_nowhere_is_named():
    (line,) = cluster.rejected_jobs(run(job()), [declared("small", max_mem_mb=10)])
    assert "fit no partition" in line.found


def test_without_a_client_of_slurm_the_checks_end(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = cluster.examine(run(job()), 1)
    assert said(line).startswith("fail  slurm: scontrol is not on PATH")


# --- test jobs ----------------------------------------------------------------------------------


@pytest.fixture
def test(tmp_path):
    """A test job of two ranks on two nodes, submitted now."""
    made = node_tests.NodeTest("regular", [], 2, False, tmp_path, number="7", sent=time.time())
    made.seen = made.sent + 2
    for rank in (0, 1):
        made.found.append(
            {
                "rank": rank, "ranks": 2, "mpi_problem": "", "node": f"n{rank}", "python": "3.11.7",
                "time": made.sent + 1, "package": package_digest(), "gpu": {},
            }
        )  # fmt: skip
    return made


def judged(test, wanted: bool = False) -> list[Finding]:
    return list(node_tests.judge(test, "srun --mpi=none", package_digest(), wanted))


def test_a_kind_of_node_without_problems_is_four_lines(test):
    lines = judged(test)
    assert [line.what for line in lines] == [
        *("files on regular", "mpi on regular", "package on regular", "clock on regular")
    ]
    assert {line.verdict for line in lines} == {"ok"}


def test_worlds_of_one_rank_are_a_wrong_launcher(test, monkeypatch):
    monkeypatch.setattr(client, "mpi_types", lambda: "none, pmi2")
    for found in test.found:
        found["ranks"] = 1
    line = judged(test)[1]
    assert said(line).startswith("fail  mpi on regular: srun --mpi=none: 2 ranks see a world of 1")
    assert line.remedy == "correct launcher in the profile (--mpi types here: none, pmi2)"


def test_another_package_on_a_node(test):
    test.found[1]["package"] = "0" * 16
    assert said(judged(test)[2]) == (
        "fail  package on regular: n1 import another one; "
        "the checkout must be seen under the same path"
    )


@pytest.mark.parametrize(("shift", "way"), [(60, "before"), (-60, "behind")])
def test_a_clock_that_is_wrong(test, shift, way):
    test.found[0]["time"] += shift
    line = judged(test)[3]
    assert line.verdict == "warn"
    assert f"{way} the one here" in line.found


@pytest.mark.parametrize(("wanted", "verdict"), [(True, "fail"), (False, "warn")])
def test_a_gpu_that_torch_does_not_see(test, wanted, verdict):
    test.with_gpu = True
    test.found[0]["gpu"] = {"given": "0", "seen": [], "problem": "torch is a build without CUDA"}
    line = judged(test, wanted)[-1]
    assert line.verdict == verdict
    assert line.found == "SLURM gave number 0; torch is a build without CUDA"
    test.found[0]["gpu"]["seen"] = ["NVIDIA A100"]
    assert judged(test, wanted)[-1].verdict == "ok"


@pytest.mark.parametrize(
    ("state", "log", "verdict", "words"),
    [
        ("PENDING (Resources)", "", "warn", "still waits: PENDING (Resources); try again"),
        ("COMPLETED", "", "fail", "must be shared by all nodes; raise latency-wait"),
        (
            "FAILED",
            "/usr/bin/python: Error while finding module specification for 'skyproof'\n",
            "fail",
            "python and the package must be there too",
        ),
        ("FAILED", "srun: error: mpi/pmix: cannot load\n", "fail", "correct launcher"),
    ],
)
def test_a_job_without_files(test, monkeypatch, state, log, verdict, words):
    monkeypatch.setattr(client, "mpi_types", lambda: "none, pmi2")
    test.found, test.state = [], state
    test.ended = 0.0 if state.startswith("PENDING") else time.time()
    test.log.write_text(log)
    (line,) = judged(test)
    assert line.verdict == verdict
    assert words in said(line)


def test_waiting_ends_with_the_files_with_the_job_or_with_patience(test, tmp_path, monkeypatch):
    def another(name: str, ranks: int = 1) -> node_tests.NodeTest:
        (tmp_path / name).mkdir()
        return node_tests.NodeTest(name, [], ranks, False, tmp_path / name, number=name)

    done, lost, waits = another("done"), another("lost"), another("waits")
    (done.folder / "n0-1.json").write_text(json.dumps({"node": "n0"}))
    states = {
        "lost": {"JobState": "COMPLETED"},
        "waits": {"JobState": "PENDING", "Reason": "Priority"},
    }
    monkeypatch.setattr(client, "job", lambda number: states[number])
    node_tests.wait([done, lost, waits], patience=1, latency=0.2)
    assert done.found == [{"node": "n0"}]
    assert lost.ended
    assert lost.state == "COMPLETED"
    assert not waits.ended
    assert waits.state == "PENDING (Priority)"


def test_each_kind_of_node_is_tried_once(there, tmp_path):
    """Two kinds of jobs share a partition but not the constraint; no job goes to the gpu nodes."""
    plain, special = job("obiwan_split"), job("obiwan_assign", constraint="haswell")
    parts = [declared("regular", max_nodes=2), declared("gpu", max_gpu=2, max_mem_mb=10)]
    made = list(node_tests.kinds(run(plain, plain, special), parts, there, tmp_path))
    assert [test.name for test in made] == ["regular", "regular haswell", "gpu"]
    assert [test.ranks for test in made] == [2, 2, 1]
    assert "--nodes=2" in made[0].words
    assert "--gpus=1" in made[2].words
    line = node_tests.line_of(made[0], ["srun", "--mpi=pmi2"])
    assert "; srun --mpi=pmi2 -n 2 python -m skyproof.workflow.doctor.probe" in line
    assert node_tests.line_of(made[2], ["srun"]).endswith(" gpu")
    assert "srun" not in node_tests.line_of(made[2], ["srun"])


# --- this machine -------------------------------------------------------------------------------


def test_ranks_that_start_and_see_one_another():
    mpiexec = Path(sys.executable).parent / "mpiexec"
    line = local.launcher(run(job(launcher=str(mpiexec))), 120)
    assert said(line) == f"ok    mpi: {mpiexec} starts 2 ranks in one world"


def test_ranks_that_do_not_connect(tmp_path):
    """The node is tested, and the finding has the reason."""
    words = [sys.executable, "-m", "skyproof.workflow.doctor.probe", tmp_path]
    with launched_without_answer() as (variables, _, sockets):
        assert launch(words, sockets=sockets, **variables).returncode == 0
    found = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    line = local.judge_world("srun", found, 1)
    assert line.verdict == "fail"
    assert "the ranks did not connect within 1 s" in line.found


@pytest.mark.parametrize(
    ("launcher", "patience", "problem"),
    [
        ("no-such-mpiexec", 60, "no-such-mpiexec is not on PATH"),
        ("false", 60, "false started 0 of 2 ranks"),
        ("sh -c 'sleep 60'", 0.3, "did not end in 0 s"),
    ],
)
def test_a_launcher_that_starts_nothing(launcher, patience, problem):
    line = local.launcher(run(job(launcher=launcher)), patience)
    assert line.verdict == "fail"
    assert problem in line.found
    assert line.remedy


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(local, "_PACKAGES", ("numpy", "no_such_package"))
    line = local.packages(run(job()))
    assert (line.verdict, line.remedy) == ("fail", "make venv")
    assert "no_such_package" in line.found


def test_a_job_that_is_larger_than_the_machine():
    line = local.machine(run(job(mem_mb=10_000)), 8_000)
    assert line.verdict == "warn"
    assert "obiwan_train asks for 10.0 GB" in line.found


def test_apptainer_is_needed_only_where_rules_run_in_images():
    wanted = run(job())
    assert local.containers(wanted, None, False).verdict == "ok"
    wanted.arguments.software_deployment_method = {"DeploymentMethod.APPTAINER"}
    assert local.containers(wanted, None, True).verdict == "fail"
    assert local.containers(wanted, "/usr/bin/apptainer", False).verdict == "warn"
    assert local.containers(wanted, "/usr/bin/apptainer", True).verdict == "ok"


def test_a_disk_that_is_too_small(monkeypatch, tmp_path):
    usage = SimpleNamespace(free=1e6)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: usage)
    train = job("obiwan_cutouts")
    (line,) = checks._folder(run(train, folder=tmp_path))
    assert said(line).startswith(f"fail  folder: {tmp_path}: 0 GB free")
    usage.free = 1e13
    (line,) = checks._folder(run(train, folder=tmp_path))
    assert line.verdict == "ok"


def test_a_profile_that_is_not_there_fails_with_code_4(capsys):
    from skyproof.__main__ import main

    assert main(["doctor", "--profile", "no_such_profile"]) == 4
    assert capsys.readouterr().out.startswith("fail  workflow: snakemake: Error: profile directory")
