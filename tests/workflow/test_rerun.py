"""Re-runs: exactly the stage whose option or code changed, and the stages that depend on it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import TINY, TINY_ALL, copy_checkout, planned, snakemake

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


def following(system: str, *of: str) -> dict[str, int]:
    return {rule: n for name in of for rule, n in FOLLOWING[system][name].items()}


EVERYTHING = following("obiwan", DATA, TRAINING) | following("sysnet", DATA, TRAINING)


def changed(config: dict, change: dict) -> dict:
    """Return a copy of a configuration with some values replaced, section by section."""
    made = copy.deepcopy(config)
    for key, value in change.items():
        made[key] = changed(made.get(key, {}), value) if isinstance(value, dict) else value
    return made


# Changes of both systems at once, where what follows from them is apart: each dry run takes
# seconds, and a rule of either system that should not run again shows all the same.
OPTIONS = {
    "first stage of one, last of the other": (
        {
            "obiwan": {"simulate": {"clump_fraction": 0.1}},
            "sysnet": {"evaluate": {"n_mocks": 30}},
        },
        following("obiwan", DATA, TRAINING) | JUDGED,
    ),
    "a training, baselines": (
        {"obiwan": {"train": {"n_epochs": 3}}, "sysnet": {"baselines": {"n_trees": 6}}},
        following("obiwan", TRAINING) | {"sysnet_baselines": 2, "sysnet_stack": 2} | JUDGED,
    ),
    "a verdict, a training": (
        {"obiwan": {"evaluate": {"n_bootstrap": 60}}, "sysnet": {"train": {"n_epochs": 4}}},
        {"obiwan_evaluate": 1} | following("sysnet", TRAINING),
    ),
    "a mock sky": ({"sysnet": {"mock": {"density": 30.0}}}, following("sysnet", DATA, TRAINING)),
    "one region of two": (
        {"sysnet": {"regions": {"south": {"realisation": 1}}}},
        {rule: max(n // 2, 1) for rule, n in following("sysnet", DATA, TRAINING).items()},
    ),
    "an inherited option": (
        {"sysnet": {"learning_rate": 0.02}},
        {"sysnet_tune": 2} | following("sysnet", TRAINING),
    ),
    "stages that are not part of this run": (
        {
            "obiwan": {"ingest": {"n_fake": 7}},
            "sysnet": {"tabulate": {"min_fracgood": 0.2}, "export": {"do_tar": True}},
        },
        {},
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_changed_option(tiny_all, case):
    change, expected = OPTIONS[case]
    config = changed(TINY_ALL, change)
    assert planned(snakemake(tiny_all, "-n", config=config)) == expected


def test_changed_resources_re_run_nothing(tiny_all):
    words = ["--set-resources", "obiwan_train:mem_mb=9000", "sysnet_train:mem_mb=9000"]
    words += ["--set-threads", "obiwan_simulate=1", "sysnet_mock=1"]
    assert planned(snakemake(tiny_all, "-n", *words, config=TINY_ALL)) == {}


def test_a_finished_run_has_nothing_to_do(tiny_all):
    """Also after the dry runs of other configurations above."""
    result = snakemake(tiny_all, "-n", config=TINY_ALL)
    assert planned(result) == {}
    assert "Nothing to be done" in result.stdout + result.stderr


@pytest.fixture(scope="module")
def copied(tiny_all, tmp_path_factory) -> tuple[Path, Path]:
    """A copy of the finished run, as the run of a copy of the checkout; both folders."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(tiny_all, folder / "run", symlinks=True)
    checkout = copy_checkout(folder / "checkout")
    again = snakemake(folder / "run", "-n", checkout=checkout, config=TINY_ALL)
    assert planned(again) == {}
    return folder / "run", checkout


LINES = {
    ("obiwan/network.py", "sysnet/summarise.py"): (
        following("obiwan", TRAINING) | {"sysnet_summarise": 1}
    ),
    ("obiwan/evaluate.py", "sysnet/train.py"): (
        {"obiwan_evaluate": 1} | following("sysnet", TRAINING)
    ),
    ("sysnet/evaluate.py",): JUDGED,
    ("sysnet/mock.py", "sysnet/table.py"): following("sysnet", DATA, TRAINING),
    ("core/formats/write.py",): EVERYTHING,
    # These know resources, and print.
    ("workflow/summary.py", "obiwan/plan.py", "sysnet/plan.py"): {},
}


@pytest.mark.parametrize("modules", LINES, ids=" ".join)
def test_a_changed_line(copied, edit, modules):
    finished, checkout = copied
    paths = [checkout / "scripts/skyproof" / name for name in modules]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        edit(path)
    try:
        planning = snakemake(finished, "-n", checkout=checkout, config=TINY_ALL)
    finally:
        for path, content in zip(paths, before, strict=True):
            path.write_bytes(content)
    assert planned(planning) == LINES[modules]


TOY_RULES = '''
rule toy:
    input:
        "results/toy/block.json",


rule toy_noise:
    """Random numbers."""
    output:
        index="results/toy/block.json",
    params:
        **stage("toy.noise", image="generate"),
    shell:
        "{params.start} python -m skyproof toy.noise {params.files} {params.options}"
'''


def test_another_system_is_one_folder_and_one_file_and_changes_no_other_job(
    tiny, checkout, edit, tmp_path
):
    finished = shutil.copytree(tiny, tmp_path / "run", symlinks=True)
    shutil.copytree(ROOT / "tests/systems/toy", checkout / "scripts/skyproof/toy")
    (checkout / "rules/toy.smk").write_text(TOY_RULES)
    both = TINY | {"systems": ["obiwan", "toy"], "toy": {"noise": {"n_items": 3}}}
    assert planned(snakemake(finished, "-n", checkout=checkout, config=both)) == {"toy_noise": 1}
    run = snakemake(finished, "-c", "1", checkout=checkout, config=both)
    assert run.returncode == 0, run.stdout + run.stderr
    assert planned(snakemake(finished, "-n", checkout=checkout, config=both)) == {}
    edit(checkout / "scripts/skyproof/toy/noise.py")
    assert planned(snakemake(finished, "-n", checkout=checkout, config=both)) == {"toy_noise": 1}
