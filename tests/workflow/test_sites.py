"""Examples of sites in profiles/slurm/sites: all systems plan, with correct SLURM options."""

from __future__ import annotations

import pytest
import yaml

from skyproof.workflow.plan.dryrun import DryRun, PlannedJob, dry_run
from skyproof.workflow.slurm import sbatch_args
from tests.conftest import ROOT

pytestmark = pytest.mark.workflow

SITES = ROOT / "profiles/slurm/sites"
NAMES = sorted(path.name for path in SITES.iterdir())


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Dry runs of the default configuration, one per site."""
    made: dict[str, DryRun] = {}

    def plan(site: str) -> DryRun:
        if site not in made:
            folder = tmp_path_factory.mktemp(site)
            profiles = ["--profile", str(ROOT / "profiles/slurm"), "--profile", str(SITES / site)]
            made[site] = dry_run([*profiles, "--directory", str(folder)])
        return made[site]

    return plan


def first(run: DryRun, rule: str) -> PlannedJob:
    return next(job for job in run.jobs if job.rule == rule)


def sent(run: DryRun, rule: str) -> str:
    return " ".join(sbatch_args.words(first(run, rule), sbatch_args.partitions(run)))


@pytest.mark.parametrize("site", NAMES)
def test_all_systems_plan_and_each_job_fits_a_partition(planned, site):
    run = planned(site)
    assert run.executor == "slurm"
    assert {job.benchmark.split("/")[2] for job in run.jobs if job.benchmark} >= {
        "obiwan",
        "sysnet",
    }
    declared = sbatch_args.partitions(run)
    for job in run.jobs:
        if job.benchmark:
            words = sbatch_args.words(job, declared)
            assert ("-p" in words) == bool(declared), (job.rule, words)
            assert "-A" in words


def test_jobs_are_listed_in_a_fixed_order(planned):
    """Snakemake's own order among independent jobs changes from run to run."""
    told = [(job.rule, job.outputs) for job in planned("cpu_gpu").jobs]
    assert told == sorted(told)
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("site", NAMES)
def test_a_site_repeats_all_settings_that_it_replaces(site):
    """default-resources are not merged: values missing at a site are Snakemake's defaults."""
    base = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["default-resources"]
    own = yaml.safe_load((SITES / site / "config.yaml").read_text())["default-resources"]
    optional = {"partitions"}  # a site without them
    assert set(base) - optional <= set(own)
    assert own["launcher"] == base["launcher"]


def test_cpu_and_gpu_nodes(planned):
    run = planned("cpu_gpu")
    train = sent(run, "obiwan_train")
    assert "-A my_project -p gpu" in train
    assert "--gpus=a100:1" in train
    assert "--nodes=1" in train
    assert first(run, "obiwan_train").resources["mpi"] == ""
    assert "--gpus=a100:1" in sent(run, "obiwan_infer")
    simulate = sent(run, "obiwan_simulate")
    assert "-A my_project -p cpu" in simulate
    assert "--nodes=2" in simulate
    assert "--ntasks=16" in simulate
    assert "--gpus" not in simulate


def test_constraints_instead_of_partitions(planned):
    run = planned("cray")
    simulate, train = sent(run, "obiwan_simulate"), sent(run, "obiwan_train")
    assert "-A m1234 " in simulate
    assert "-C cpu --qos=regular" in simulate
    assert "-A m1234_g " in train
    assert "-C gpu --qos=regular" in train
    assert "--gpus=1" in train
    assert "-p" not in simulate.split()


def test_knights_landing(planned):
    run = planned("knl")
    assert run.config.numerics == "native"
    train = sent(run, "obiwan_train")
    assert "-p knl" in train
    assert "-C knl,quad,cache" in train
    assert "--cpus-per-task=68" in train
    assert "--ntasks=1 " in train
    assert "--cpus-per-task=68" in sent(run, "sysnet_tune")
    assert "--ntasks=64" in sent(run, "obiwan_simulate")
    for job in run.jobs:
        assert job.resources["environment"] == (
            "KMP_AFFINITY=granularity=fine,compact,1,0 KMP_BLOCKTIME=1"
        )


def test_several_ranks_of_threads_on_a_node(tmp_path):
    """Four ranks of 17 threads, as described in the file of the site."""
    site = yaml.safe_load((SITES / "knl/config.yaml").read_text())
    site["default-resources"]["training_ranks"] = 4
    site["default-resources"]["mpi_nodes"] = 1
    site["default-resources"]["training_threads"] = 17
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(site))
    profiles = ["--profile", str(ROOT / "profiles/slurm"), "--profile", str(tmp_path)]
    run = dry_run([*profiles, "--directory", str(tmp_path)])
    train = sent(run, "obiwan_train")
    assert "--ntasks=4 --cpus-per-task=17" in train
    assert first(run, "obiwan_train").resources["mpi"].endswith(" -n 4")


@pytest.mark.parametrize("folder", [ROOT / "profiles/slurm", *(SITES / name for name in NAMES)])
def test_no_attempt_asks_for_more_than_the_largest_partition_gives(folder):
    most = dict(
        word.split("=")
        for word in yaml.safe_load((folder / "config.yaml").read_text())["resources"]
    )
    if (file := folder / "partitions.yaml").exists():
        given = yaml.safe_load(file.read_text())["partitions"].values()
        for name, limit in (("mem_mb", "max_mem_mb"), ("runtime", "max_runtime")):
            assert int(most[name]) == max(partition[limit] for partition in given)
