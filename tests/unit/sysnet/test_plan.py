"""What the rules know of a run before it starts."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pytest

from skyproof.core.errors import UsageError
from skyproof.core.options import from_words, options_model, stages
from skyproof.sysnet.options import System
from skyproof.sysnet.plan import Plan
from skyproof.workflow.config import load
from skyproof.workflow.rules import files_of, job_options_of


def plan(**values: object) -> Plan:
    return Plan(System.model_validate(values))


def words_of(made: Plan, stage: str, region: str) -> str:
    """The command-line options of a stage that a region sets."""
    wildcards = {"region": region}
    found = job_options_of(stage, made.job(wildcards), wildcards)
    return found.removesuffix(f"--wildcards region={region}").strip()


def at(region: str) -> SimpleNamespace:
    return SimpleNamespace(region=region)


def test_no_regions_are_two_mock_skies_that_differ_in_the_contamination():
    made = plan()
    assert made.regions == ["contaminated", "clean"]
    assert made.table(at("clean")) == "results/sysnet/clean/mock/table.fits"
    assert made.truth(at("clean")) == ["results/sysnet/clean/mock/truth.fits"]
    skies = [words_of(made, "sysnet.mock", name) for name in made.regions]
    assert [sky.replace("nonlinear", "none") for sky in skies] == [skies[1]] * 2


@pytest.mark.parametrize(
    ("n_folds", "n_chains", "group_size", "groups"),
    [(5, 5, 25, 1), (5, 20, 25, 4), (5, 5, 4, 7), (1, 1, 25, 1)],
)
def test_groups_hold_all_members(n_folds, n_chains, group_size, groups):
    made = plan(split={"n_folds": n_folds}, train={"n_chains": n_chains}, group_size=group_size)
    assert made.n_groups == groups
    assert made.train_ranks == 1


def test_ranks_are_not_more_than_groups():
    assert plan(train={"n_chains": 20, "block_size": 3}).train_ranks == 3
    assert plan(train={"n_chains": 5, "block_size": 8}).train_ranks == 1


@pytest.fixture
def maps(tmp_path) -> dict:
    """A region of maps, one of them with a space in its name."""
    region = {"source": "maps", "counts": "c.fits", "templates": {"ebv": "a b.fits", "n": "n.npy"}}
    for name in ("c.fits", "a b.fits", "n.npy"):
        (tmp_path / name).touch()
    region["counts"] = {"path": str(tmp_path / "c.fits"), "frame": "C"}
    region["templates"] = {k: str(tmp_path / v) for k, v in region["templates"].items()}
    return region


def test_maps_become_words_of_the_command_line(maps, tmp_path):
    made = plan(regions={"ngc": maps})
    assert made.table(at("ngc")) == "results/sysnet/ngc/tabulate/table.fits"
    assert made.truth(at("ngc")) == []
    folder = tmp_path
    assert files_of(made.sources(at("ngc")), {"table": "t.fits"}, {}) == (
        f"--in counts={folder}/c.fits templates='{folder}/a b.fits' templates={folder}/n.npy"
        " --out table=t.fits"
    )
    found = words_of(made, "sysnet.tabulate", "ngc")
    assert """--names '["ebv","n"]'""" in found
    assert """--forms '{"counts":{"frame":"C"}}'""" in found
    assert "--dec" not in found


def test_several_regions_are_cut_from_one_table(tmp_path):
    (tmp_path / "t.fits").touch()
    table = {"source": "table", "table": [str(tmp_path / "t.fits")]}
    made = plan(regions={"n": table | {"dec": [32, 90]}, "s": table | {"dec": [-30, 32]}})
    assert "--dec '[32.0,90.0]'" in words_of(made, "sysnet.tabulate", "n")
    assert "--dec '[-30.0,32.0]'" in words_of(made, "sysnet.tabulate", "s")
    assert made.sources(at("n")) == made.sources(at("s"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dec": [40, 20]}, "dec: expected (from, to) in -90 to 90"),
        ({"ra": [-10, 20]}, "ra: expected (from, to) in 0 to 360"),
        ({"templates": {"mask": "m.fits"}}, "templates: 'mask' is reserved"),
        ({"templates": {"ebv": {"path": "m.fits", "fame": "G"}}}, "fame"),
        ({"source": "maps"}, "counts: is required with source: maps"),
    ],
)
def test_invalid_regions_are_errors(words, message):
    with pytest.raises(UsageError) as caught:
        load({"sysnet": {"regions": {"ngc": words}}})
    assert message in str(caught.value)


@pytest.mark.parametrize("stage", ["sysnet.mock", "sysnet.tabulate", "sysnet.evaluate"])
def test_the_words_of_a_job_are_options_of_its_stage(maps, stage):
    found = shlex.split(words_of(plan(regions={"ngc": maps}), stage, "ngc"))
    names = [word[2:].replace("-", "_") for word in found[::2]]
    pairs = dict(zip(names, found[1::2], strict=True))
    assert pairs
    from_words(options_model(stage), pairs)


def test_a_file_that_is_not_there_is_named(maps):
    maps["templates"]["dust"] = "nowhere.fits"
    with pytest.raises(UsageError) as caught:
        plan(regions={"ngc": maps})
    assert str(caught.value) == "sysnet.regions.ngc.templates: nowhere.fits does not exist"


def test_costs_grow_with_the_problem():
    small, large = plan(), plan(mock={"nside": 256}, train={"n_epochs": 300})
    for stage in set(stages("sysnet")) - {"tabulate", "summarise", "tune", "select", "export"}:
        less, more = small.cost(stage, {}), large.cost(stage, {})
        assert more.limit_minutes > less.limit_minutes, stage
        assert more.memory_mb > less.memory_mb, stage


def test_b10_paths_keep_their_capitals_and_two_letters_are_no_two_files(tmp_path):
    """The original lower-cases the path of its configuration, and takes "ab" for two inputs."""
    path = tmp_path / "eBOSS.ELG.Table.FITS"
    path.touch()
    made = plan(regions={"NGC": {"source": "table", "table": [str(path)]}})
    assert made.sources(at("NGC")) == {"table": [str(path)]}
    with pytest.raises(UsageError, match=r"regions\.NGC\.table: input should be a valid list"):
        load({"sysnet": {"regions": {"NGC": {"source": "table", "table": "ab"}}}})


SWITCHES = [
    (stage, name)
    for stage, model in stages("sysnet").items()
    for name, field in model.model_fields.items()
    if field.annotation is bool
]


@pytest.mark.parametrize(("stage", "name"), SWITCHES)
def test_b11_every_switch_can_be_turned_off_and_on(stage, name):
    """In the original a flag that its file sets cannot be turned off by the command line."""
    for value in (True, False):
        found = from_words(options_model(f"sysnet.{stage}"), {name: str(value).lower()})
        assert getattr(found, name) is value
