"""What re-runs: exactly the stage whose option or code changed, and what follows from it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import TINY, TINY_SYSNET, planned, snakemake

pytestmark = pytest.mark.workflow

# What follows from a change in each system's first stage, and in its training.
DATA, TRAINING = "data", "training"
FOLLOWING = {
    "obiwan": {
        DATA: {"obiwan_simulate": 2, "obiwan_cutouts": 2, "obiwan_assign": 1, "obiwan_split": 2},
        TRAINING: {"obiwan_train": 1, "obiwan_infer": 1, "obiwan_evaluate": 1},
    },
    "sysnet": {  # of two regions
        DATA: {
            "sysnet_mock": 2, "sysnet_split": 2, "sysnet_select": 2, "sysnet_tune": 2,
            "sysnet_baselines": 2,
        },
        TRAINING: {
            "sysnet_train": 6, "sysnet_infer": 2, "sysnet_stack": 2, "sysnet_evaluate": 2,
            "sysnet_summarise": 1,
        },
    },
}  # fmt: skip
JUDGED = {"sysnet_evaluate": 2, "sysnet_summarise": 1}
RUNS = {"obiwan": ("tiny", TINY), "sysnet": ("tiny_sysnet", TINY_SYSNET)}


def following(system: str, *of: str) -> dict[str, int]:
    return {rule: n for name in of for rule, n in FOLLOWING[system][name].items()}


def changed(config: dict, change: dict) -> dict:
    """Return a copy of a configuration with some values replaced, section by section."""
    made = copy.deepcopy(config)
    for key, value in change.items():
        made[key] = changed(made.get(key, {}), value) if isinstance(value, dict) else value
    return made


@pytest.fixture(params=RUNS)
def system(request) -> str:
    return request.param


@pytest.fixture
def done(system, request) -> Path:
    """The finished tiny run of a system."""
    return request.getfixturevalue(RUNS[system][0])


@pytest.fixture
def finished(system, done, checkout, tmp_path) -> Path:
    """The same run, as the run of the copied checkout."""
    folder = tmp_path / "run"
    shutil.copytree(done, folder, symlinks=True)
    assert planned(snakemake(folder, "-n", checkout=checkout, config=RUNS[system][1])) == {}
    return folder


def test_a_finished_run_has_nothing_to_do(system, done):
    result = snakemake(done, "-n", config=RUNS[system][1])
    assert planned(result) == {}
    assert "Nothing to be done" in result.stdout + result.stderr


OPTIONS = [
    ("obiwan", {"simulate": {"clump_fraction": 0.1}}, following("obiwan", DATA, TRAINING)),
    ("obiwan", {"train": {"n_epochs": 3}}, following("obiwan", TRAINING)),
    ("obiwan", {"evaluate": {"n_bootstrap": 60}}, {"obiwan_evaluate": 1}),
    ("obiwan", {"ingest": {"n_fake": 7}}, {}),  # not part of this run
    ("sysnet", {"mock": {"density": 30.0}}, following("sysnet", DATA, TRAINING)),
    (  # of one region: half of all
        "sysnet",
        {"regions": {"south": {"realisation": 1}}},
        {rule: max(n // 2, 1) for rule, n in following("sysnet", DATA, TRAINING).items()},
    ),
    ("sysnet", {"train": {"n_epochs": 4}}, following("sysnet", TRAINING)),
    ("sysnet", {"learning_rate": 0.02}, {"sysnet_tune": 2} | following("sysnet", TRAINING)),
    (
        "sysnet",
        {"baselines": {"n_trees": 6}},
        {"sysnet_baselines": 2, "sysnet_stack": 2} | JUDGED,
    ),
    ("sysnet", {"evaluate": {"n_mocks": 30}}, JUDGED),
    ("sysnet", {"tabulate": {"min_fracgood": 0.2}}, {}),  # not part of this run
    ("sysnet", {"export": {"do_tar": True}}, {}),
]


@pytest.mark.parametrize(
    ("system", "change", "expected"), OPTIONS, ids=lambda x: str(x)[:60], indirect=["system"]
)
def test_a_changed_option(system, done, change, expected):
    config = changed(RUNS[system][1], {system: change})
    assert planned(snakemake(done, "-n", config=config)) == expected
    assert planned(snakemake(done, "-n", config=RUNS[system][1])) == {}


def test_changed_resources_re_run_nothing(system, done):
    first = {"obiwan": "obiwan_simulate", "sysnet": "sysnet_mock"}[system]
    words = ["--set-resources", f"{system}_train:mem_mb=9000", "--set-threads", f"{first}=1"]
    assert planned(snakemake(done, "-n", *words, config=RUNS[system][1])) == {}


LINES = [
    ("obiwan", "obiwan/network.py", following("obiwan", TRAINING)),
    ("obiwan", "obiwan/evaluate.py", {"obiwan_evaluate": 1}),
    ("obiwan", "core/products.py", following("obiwan", DATA, TRAINING)),
    ("obiwan", "workflow/summary.py", {}),
    ("obiwan", "sysnet/table.py", {}),
    ("sysnet", "sysnet/mock.py", following("sysnet", DATA, TRAINING)),
    ("sysnet", "sysnet/train.py", following("sysnet", TRAINING)),
    ("sysnet", "sysnet/evaluate.py", JUDGED),
    ("sysnet", "sysnet/summarise.py", {"sysnet_summarise": 1}),
    ("sysnet", "sysnet/plan.py", {}),  # knows resources only
    ("sysnet", "obiwan/network.py", {}),
]


@pytest.mark.parametrize(
    ("system", "module", "expected"), LINES, ids=lambda x: str(x)[:40], indirect=["system"]
)
def test_a_changed_line(system, finished, checkout, edit, module, expected):
    edit(checkout / "scripts/skyproof" / module)
    planning = snakemake(finished, "-n", checkout=checkout, config=RUNS[system][1])
    assert planned(planning) == expected


TOY_RULES = '''
rule toy:
    input:
        "results/toy/block.json",


rule toy_noise:
    """Random numbers."""
    output:
        record="results/toy/block.json",
    params:
        **stage("toy.noise", image="generate"),
    shell:
        "{params.start} python -m skyproof toy.noise {params.files} {params.options}"
'''


@pytest.mark.parametrize("system", ["obiwan"], indirect=True)
def test_another_system_is_one_folder_and_one_file_and_disturbs_nothing(finished, checkout, edit):
    shutil.copytree(ROOT / "tests/systems/toy", checkout / "scripts/skyproof/toy")
    (checkout / "rules/toy.smk").write_text(TOY_RULES)
    both = TINY | {"systems": ["obiwan", "toy"], "toy": {"noise": {"n_items": 3}}}
    assert planned(snakemake(finished, "-n", checkout=checkout, config=both)) == {"toy_noise": 1}
    run = snakemake(finished, "-c", "1", checkout=checkout, config=both)
    assert run.returncode == 0, run.stdout + run.stderr
    assert planned(snakemake(finished, "-n", checkout=checkout, config=both)) == {}
    edit(checkout / "scripts/skyproof/toy/noise.py")
    assert planned(snakemake(finished, "-n", checkout=checkout, config=both)) == {"toy_noise": 1}
