"""What re-runs: exactly the stage whose option or code changed, and what follows from it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import TINY, planned, snakemake

pytestmark = pytest.mark.workflow

FOLLOWING = {
    "simulate": {"obiwan_simulate": 2, "obiwan_cutouts": 2, "obiwan_assign": 1, "obiwan_split": 2},
    "train": {"obiwan_train": 1, "obiwan_infer": 1, "obiwan_evaluate": 1},
}


def test_a_finished_run_has_nothing_to_do(tiny):
    result = snakemake(tiny, "-n")
    assert planned(result) == {}
    assert "Nothing to be done" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("simulate", "clump_fraction", 0.1, FOLLOWING["simulate"] | FOLLOWING["train"]),
        ("train", "n_epochs", 3, FOLLOWING["train"]),
        ("evaluate", "n_bootstrap", 60, {"obiwan_evaluate": 1}),
        ("ingest", "n_fake", 7, {}),  # not part of this run
    ],
)
def test_a_changed_option(tiny, section, key, value, expected):
    config = copy.deepcopy(TINY)
    config["obiwan"].setdefault(section, {})[key] = value
    assert planned(snakemake(tiny, "-n", config=config)) == expected
    assert planned(snakemake(tiny, "-n")) == {}


def test_changed_resources_re_run_nothing(tiny):
    words = ["--set-resources", "obiwan_train:mem_mb=9000", "--set-threads", "obiwan_simulate=1"]
    assert planned(snakemake(tiny, "-n", *words)) == {}


@pytest.fixture
def finished(tiny, checkout, tmp_path) -> Path:
    """The tiny run again, as the run of the copied checkout."""
    folder = tmp_path / "run"
    shutil.copytree(tiny, folder, symlinks=True)
    assert planned(snakemake(folder, "-n", checkout=checkout)) == {}
    return folder


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("obiwan/network.py", FOLLOWING["train"]),
        ("obiwan/evaluate.py", {"obiwan_evaluate": 1}),
        ("core/products.py", FOLLOWING["simulate"] | FOLLOWING["train"]),
        ("workflow/summary.py", {}),
    ],
)
def test_a_changed_line(finished, checkout, edit, module, expected):
    edit(checkout / "scripts/skyproof" / module)
    assert planned(snakemake(finished, "-n", checkout=checkout)) == expected


TOY_RULES = '''
rule toy:
    input:
        "results/toy/block.json",


rule toy_noise:
    """Random numbers."""
    output:
        record="results/toy/block.json",
    params:
        options=options("toy.noise"),
        code=code("toy.noise"),
    shell:
        "python -m skyproof toy.noise --out record={output.record} {params.options}"
'''


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
