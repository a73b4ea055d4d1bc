"""The plan of a run: rates of earlier jobs, the longest chain, limits that are too short."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from skyproof.core import blocks, receipts
from skyproof.core.cost import Cost
from skyproof.core.options import stages, systems
from skyproof.proof.jobs import JobReceipt
from skyproof.workflow.config import load, stage_options
from skyproof.workflow.plan import forecast
from skyproof.workflow.plan.dryrun import DryRun, PlannedJob
from skyproof.workflow.plan.history import Rate, _sample, rates
from skyproof.workflow.plan.systems import megabytes, plan_of
from skyproof.workflow.plan.table import lines, make

CONFIG = {"systems": ["obiwan"], "obiwan": {"block_size": 4, "simulate": {"n_bricks": 8}}}


def job(
    stage: str, *, reads=(), makes=(), block: str | None = None, threads=1, **resources
) -> PlannedJob:
    """A planned job of Obiwan."""
    end = f"-{block}" if block else ""
    return PlannedJob(
        rule=f"obiwan_{stage}",
        wildcards={"block": block} if block else {},
        inputs=tuple(reads),
        outputs=tuple(makes),
        benchmark=f"logs/benchmarks/obiwan/{stage}{end}.tsv",
        threads=threads,
        resources={"mem_mb": 1000, "runtime": 60, **resources},
    )


def chain(**train) -> DryRun:
    """Two blocks of bricks, then a training; on one core."""
    jobs = [job("simulate", makes=[f"b{k}"], block=f"0000{k}") for k in (0, 1)]
    jobs.append(job("train", reads=["b0", "b1"], makes=["model"], **train))
    return DryRun(jobs, load(CONFIG), Path(), "local", 1)


# --- cost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "stage"), [(system, name) for system in systems() for name in stages(system)]
)
def test_every_stage_has_a_cost(system, stage):
    plan = plan_of(system, getattr(load({}), system))
    cost = plan.cost(stage, {"region": "clean"})
    assert cost.start > 0
    assert cost.megabytes > 0
    assert cost.core_seconds >= 0
    assert cost.parts >= 1


@pytest.mark.parametrize("stage", ["simulate", "cutouts", "split"])
def test_the_costs_of_the_blocks_sum_to_that_of_the_run(stage):
    """10 bricks in blocks of 4: the last block is smaller."""
    config = load({"obiwan": {"block_size": 4, "simulate": {"n_bricks": 10}}}).obiwan
    plan = plan_of("obiwan", config)
    made = [plan.cost(stage, {"block": f"0000{k}"}) for k in range(3)]
    whole = plan.cost(stage, {})
    assert sum(block.core_seconds for block in made) == pytest.approx(whole.core_seconds)
    assert sum(block.megabytes for block in made) == pytest.approx(whole.megabytes)
    assert [block.parts for block in made] == [4, 4, 2]


def test_blocks_of_groups_are_all_networks():
    config = load({"sysnet": {"group_size": 4, "train": {"n_chains": 2}}}).sysnet
    plan = plan_of("sysnet", config)
    made = [plan.cost("train", {"block": f"0000{k}"}) for k in range(3)]
    assert sum(block.core_seconds for block in made) == pytest.approx(
        plan.cost("train", {}).core_seconds
    )


def test_the_products_of_a_run_are_those_of_its_systems():
    both = load({"systems": ["obiwan", "sysnet"]})
    each = [load({"systems": [name]}) for name in ("obiwan", "sysnet")]
    assert megabytes(both) == pytest.approx(sum(map(megabytes, each)))
    assert min(map(megabytes, each)) > 0


def test_ranks_share_whole_items():
    """Five items on four ranks take two rounds."""
    cost = Cost(3600, 0, 100, start=0, parts=5)
    assert cost.hours(1) == 1
    assert cost.hours(4) == pytest.approx(2 / 5)
    assert cost.hours(8) == pytest.approx(1 / 5)


def test_the_time_to_write_does_not_depend_on_ranks():
    cost = Cost(0, 300 * 3600, 100, start=0, parts=8)
    assert cost.hours(8) == cost.hours(1) == 1


@pytest.mark.parametrize("name", systems())
def test_a_time_limit_is_many_times_the_estimate_and_memory_is_requested(name):
    """The estimates were 0.8 to 2.0 times the time measured: a factor of ten is enough."""
    plan = plan_of(name, getattr(load({}), name))
    for stage in stages(name):
        cost = plan.cost(stage, {"region": "clean"})
        assert cost.limit_minutes >= 10 * 60 * cost.hours(1) + 5
        assert cost.memory_mb >= 400


def test_a_gpu_has_a_separate_time():
    cost = Cost(3600, 0, 100, start=36, gpu_seconds=72)
    assert cost.hours(1, gpu=True) == pytest.approx(0.03)
    assert cost.hours(1, gpu=True, factor=2) == pytest.approx(0.06)


# --- rates of earlier jobs ----------------------------------------------------------------------


def finished(folder: Path, config: dict, seconds: float, megabytes: float) -> None:
    """Write the index, receipt and benchmark of a finished block of simulated bricks."""
    options = stage_options(load(config), "obiwan.simulate")
    values = options.model_dump(mode="json")
    options_without_effect = {"block": 0, "block_size": values.pop("block_size")}
    values.pop("block")
    home = folder / "results/obiwan/simulate"
    (home / ".journal").mkdir(parents=True)
    record = home / "simulated-00000.json"
    size = int(megabytes * 1e6)
    brick = {"info": {}, "files": [{"path": "a.fits", "size": size, "sha256": "0" * 64}]}
    record.write_text(
        json.dumps({"format": blocks.FORMAT, "stage": "obiwan.simulate", "items": {"a": brick}})
    )
    receipt = {
        "format": receipts.FORMAT,
        "stage": "obiwan.simulate",
        "code": "0" * 16,
        "libraries": {},
        "device": "cpu",
        "numerics": "portable",
        "options": values,
        "job_options": {},
        "inputs": [],
        "outputs": [{"name": "bricks", "path": record.name, "size": 0, "sha256": "0" * 64}],
        "run": {
            "ranks": 1,
            "threads": 1,
            "grain": options_without_effect,
            "started": "2026-01-01",
            "ended": "2026-01-01",
            "command": "python -m skyproof obiwan.simulate",
            "wildcards": {"block": "00000"},
        },
    }
    receipts.path_of(record).write_text(json.dumps(receipt))
    benchmark = folder / "logs/benchmarks/obiwan/simulate-00000.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:0:0\t123.5\n")


def test_a_rate_of_small_bricks_is_scaled_to_a_survey(tmp_path):
    """Three times as long, and half of the bytes, of the estimate for the small job."""
    small = plan_of("obiwan", load(CONFIG).obiwan).cost("simulate", {"block": "00000"})
    seconds = 3600 * small.hours(1, factor=3)
    finished(tmp_path, CONFIG, seconds, small.megabytes / 2)
    survey = load({"obiwan": {"block_size": 64, "simulate": {"brick_pixels": 3600}}})
    rate = rates(tmp_path, survey)["obiwan.simulate", "cpu"]
    assert rate.jobs == 1
    assert rate.seconds == pytest.approx(3)
    assert rate.disk == pytest.approx(0.5, rel=1e-3)
    assert rate.memory_mb == 123.5
    run = DryRun([job("simulate", block="00000", makes=["b"])], survey, Path())
    (found,) = forecast.estimate(run, {("obiwan.simulate", "cpu"): rate})
    large = plan_of("obiwan", survey.obiwan).cost("simulate", {"block": "00000"})
    assert found.hours == pytest.approx(large.hours(1, factor=3))
    assert large.hours(1) > 20 * small.hours(1)
    assert found.megabytes == pytest.approx(large.megabytes / 2, rel=1e-3)
    assert (found.basis, found.disk_basis) == ("measured", "measured")


def test_a_short_job_gives_no_rate_of_time_but_one_of_disk(tmp_path):
    """For any measured time: on a survey it would be multiplied by a thousand."""
    small = {"obiwan": {"block_size": 4, "simulate": {"n_bricks": 4, "brick_pixels": 200}}}
    finished(tmp_path, small, seconds=30, megabytes=7)
    rate = rates(tmp_path, load(small))["obiwan.simulate", "cpu"]
    assert (rate.jobs, rate.seconds) == (0, 1.0)
    run = DryRun([job("simulate", block="00000", makes=["b"])], load(small), Path())
    (found,) = forecast.estimate(run, {("obiwan.simulate", "cpu"): rate})
    assert (found.basis, found.disk_basis) == ("estimate", "measured")
    assert found.megabytes == pytest.approx(7)


def test_a_limited_number_of_blocks_of_a_survey_is_read():
    """Of 1000 blocks of each of two regions; a job without a block is always included."""

    def finished_job(stage: str, **wildcards: str) -> JobReceipt:
        return JobReceipt("x", {"stage": stage, "run": {"wildcards": wildcards}}, {}, [], {})

    jobs = [
        finished_job("obiwan.split", region=region, block=f"{k:05d}")
        for region in ("north", "south")
        for k in range(1000)
    ]
    found = list(_sample([*jobs, finished_job("obiwan.assign")]))
    regions = [job.receipt["run"]["wildcards"].get("region", "") for job in found]
    assert regions.count("") == 1
    assert 32 <= regions.count("north") == regions.count("south") <= 65


def test_a_receipt_without_wildcards_has_no_block(tmp_path):
    """Receipts of earlier versions have none; their benchmark file is not found."""
    finished(tmp_path, CONFIG, seconds=100, megabytes=7)
    path = tmp_path / "results/obiwan/simulate/.journal/simulated-00000.json.receipt.json"
    receipt = json.loads(path.read_text())
    assert rates(tmp_path, load(CONFIG))
    del receipt["run"]["wildcards"]
    path.write_text(json.dumps(receipt))
    assert rates(tmp_path, load(CONFIG)) == {}


@pytest.mark.parametrize("left", ["", "s\tmax_rss\n", "s\tmax_rss\nNA\t-\n"])
def test_an_empty_benchmark_file_is_ignored(tmp_path, left):
    finished(tmp_path, CONFIG, seconds=100, megabytes=7)
    (tmp_path / "logs/benchmarks/obiwan/simulate-00000.tsv").write_text(left)
    assert rates(tmp_path, load(CONFIG)) == {}


def test_a_rate_of_a_cpu_is_not_used_for_a_gpu():
    run = chain(device="cuda", gpu=1)
    known = {("obiwan.train", "cpu"): Rate(1, 5.0, 2.0, 100)}
    train = forecast.estimate(run, known)[-1]
    assert (train.basis, train.disk_basis) == ("estimate", "measured")
    assert train.gpu_hours == train.hours < forecast.estimate(chain(), {})[-1].hours


# --- chain and end ------------------------------------------------------------------------------


def items(*hours: float, reads: dict[int, list[int]], cores: int = 1) -> list[forecast.Estimate]:
    """Jobs of given hours, each reading outputs of others."""
    return [
        forecast.Estimate(
            job("x", reads=map(str, reads.get(k, [])), makes=[str(k)], threads=cores),
            "x", value, 0, "estimate", "estimate",
        )
        for k, value in enumerate(hours)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("slots", "cluster", "hours"), [(1, True, 15), (2, True, 9), (9, True, 8), (9, False, 9)]
)
def test_the_end_depends_on_how_many_run_at_a_time(slots, cluster, hours):
    """Jobs of 3, 3, 3 and 1 h, and one of 5 h after the first; each takes 4 cores of a machine."""
    found = items(3, 3, 3, 1, 5, reads={4: [0]}, cores=4)
    assert forecast.hours_until_done(found, forecast.parents(found), slots, cluster) == hours


def random_graph(seed: int) -> list[list[int]]:
    """For each of up to 40 jobs, the jobs before it."""
    draw = random.Random(seed)
    order = draw.sample(range(40), draw.randint(0, 40))
    order = [sorted(order).index(number) for number in order]
    before: list[list[int]] = [[] for _ in order]
    for place, number in enumerate(order):
        before[number] = sorted(draw.sample(order[:place], draw.randint(0, min(place, 4))))
    return before


def test_jobs_are_in_the_order_in_which_they_become_ready():
    for before in map(random_graph, range(300)):
        expected = [number for number, found in enumerate(before) if not found]
        for done in expected:
            for number, found in enumerate(before):
                if done in found and set(found) <= set(expected[: expected.index(done) + 1]):
                    expected.append(number)
        assert forecast.in_order(before) == expected


def test_the_longest_chain_is_that_of_hours_not_of_jobs():
    found = items(1, 1, 1, 5, 1, reads={1: [0], 2: [1], 4: [2, 3]})
    chain = forecast.longest_chain(found, forecast.parents(found))
    assert chain == [3, 4]


# --- the plan -----------------------------------------------------------------------------------


def test_one_line_per_stage_and_totals():
    made = make(chain(tasks=2, cpus_per_task=3), {})
    assert [(row.rule, row.jobs, row.ranks) for row in made.rows] == [
        ("obiwan_simulate", 2, 1),
        ("obiwan_train", 1, 2),
    ]
    train = made.rows[1]
    assert train.core_hours == pytest.approx(6 * train.hours)
    assert made.chain_hours == pytest.approx(made.rows[0].hours + train.hours)
    assert made.until_done_hours == pytest.approx(2 * made.rows[0].hours + train.hours)
    printed = lines(made)
    assert printed[0].split()[0] == "stage"
    assert printed[3].split()[:2] == ["total", "3"]


def test_a_limit_that_is_too_short_is_named():
    made = make(chain(runtime=0.01), {})
    (warning,) = made.warnings
    assert warning.startswith("obiwan_train: ")
    assert "first time limit is 1 s" in warning


def test_memory_that_an_earlier_job_took_is_compared():
    made = make(chain(), {("obiwan.train", "cpu"): Rate(1, 1.0, 1.0, 1500)})
    assert [row.seen_gb for row in made.rows] == [0, 1.5]
    assert made.warnings == ["obiwan_train: an earlier job took 1500 MB, 1000 MB are asked for"]


def test_a_job_that_fits_no_partition_is_named(tmp_path):
    path = tmp_path / "partitions.yaml"
    path.write_text("partitions: {small: {max_runtime: 90, max_mem_mb: 4000, max_threads: 8}}\n")
    run = chain(runtime=100)
    run.executor, run.partitions = "slurm", path
    made = make(run, {})
    assert [row.partition for row in made.rows] == ["small", "none"]
    assert made.warnings[0].startswith(
        "obiwan_train: fits no partition of partitions.yaml (100 min"
    )


def test_nothing_to_do_is_one_line():
    assert lines(make(DryRun([], load(CONFIG)), {})) == [
        "Nothing to be done; --forceall plans all of it."
    ]


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [({}, 0), ({"gpu": 2}, 2), ({"gres": "gpu:a100:4"}, 4), ({"gres": "gpu"}, 1)],
)
def test_gpus_are_read_from_either_word(resources, gpus):
    assert job("train", **resources).gpus == gpus
