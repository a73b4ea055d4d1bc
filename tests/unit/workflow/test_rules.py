"""The rules: one form, and names that follow from system and stage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skyproof.core.options import options_model, stages, systems
from skyproof.workflow.plan.systems import place_of, stages_by_rule
from skyproof.workflow.rules import files_of, job_options_of
from tests.conftest import ROOT

MOST_LINES = 28
FIELDS = (
    *("input", "output", "log", "benchmark", "conda", "threads", "resources", "params", "shell"),
)


def rules_of(path: Path) -> dict[str, str]:
    """The text of each rule of a file, by name."""
    parts = re.split(r"^rule (\w+):\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        name: re.split(r"^(?=[^\s])", text, maxsplit=1, flags=re.MULTILINE)[0].rstrip()
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


RULES = {
    name: text
    for path in sorted((ROOT / "rules").glob("*.smk"))
    for name, text in rules_of(path).items()
}
STAGES = {name: text for name, text in RULES.items() if "**stage(" in text}
each_stage = pytest.mark.parametrize("name", STAGES)


def field(name: str, which: str) -> str:
    """The lines of a field of a rule, without its own name."""
    found = re.search(rf"^    {which}:\s*(.*?)(?=^    \S|\Z)", STAGES[name], re.M | re.S)
    return found[1].rstrip() if found else ""


def paths(name: str, which: str) -> list[str]:
    """The quoted words of a field; constants of the file are replaced by their text."""
    system = name.partition("_")[0]
    text = (ROOT / f"rules/{system}.smk").read_text(encoding="utf-8")
    constants = dict(re.findall(r'^([A-Z_]+) = "([^"]+)"$', text, re.MULTILINE))
    found = re.sub(r"=([A-Z_]+)\b", lambda m: f'="{constants.get(m[1], "")}"', field(name, which))
    # The first text of an output: a figure's further ones are labels.
    return re.findall(r'(?:^|\n)\s*(?:\w+=)?(?:figure\()?"([^"]+)"', "\n" + found)


def test_one_rule_a_stage_and_one_stage_a_rule():
    assert set(STAGES) == {f"{system}_{name}" for system in systems() for name in stages(system)}
    assert set(STAGES) == set(stages_by_rule())
    for name, text in STAGES.items():
        stage = ".".join(stages_by_rule()[name])
        assert field(name, "params").startswith(f'**stage("{stage}", '), name
        assert f"{{params.start}} python -m skyproof {stage} {{params.files}}" in text
        assert re.search(rf'\*\*(mpi|serial|training)\("{re.escape(stage)}"', text), name


@each_stage
def test_a_rule_is_a_short_form(name):
    """Fields in one order; products that the report shows are not counted."""
    lines = re.sub(r"^ +\w+=figure\([^()]*\),\n", "", STAGES[name], flags=re.M).splitlines()
    assert len(lines) + 1 <= MOST_LINES  # with the line of its name
    assert lines[0].startswith('    """')
    found = re.findall(r"^    (\w+):", STAGES[name], re.MULTILINE)
    assert found == [known for known in FIELDS if known in found]
    assert set(FIELDS) - set(found) <= {"input", "threads"}


@each_stage
def test_products_lie_in_the_folder_of_their_stage(name):
    system, stage = stages_by_rule()[name]
    found = paths(name, "output")
    names = re.findall(r"^\s*(\w+)=", "\n" + field(name, "output"), re.MULTILINE)
    assert set(names) == set(options_model(f"{system}.{stage}").outputs)
    assert len(found) == len(names)
    for path in found:
        assert re.fullmatch(rf"(results/)?{system}/(\{{region\}}/)?{stage}/[^/]+", path), path


@each_stage
def test_logs_and_benchmarks_are_named_by_stage_and_wildcards(name):
    text = "".join(paths(name, "output"))
    wildcards = {word: f"{{{word}}}" for word in ("region", "block") if f"{{{word}}}" in text}
    place = place_of(*stages_by_rule()[name], wildcards)
    assert paths(name, "log") == [f"logs/{place}.log"]
    assert paths(name, "benchmark") == [f"logs/benchmarks/{place}.tsv"]


def test_no_target_has_the_name_of_a_stage_rule():
    """The targets: one a system, and sysnet_exports."""
    others = set(RULES) - set(STAGES)
    assert others == {*systems(), "sysnet_exports", "manifest", "verify"}


# --- words of the shell line ---------------------------------------------------------------------


def test_files_become_words_and_names_are_quoted():
    inputs = {"table": "a b.fits", "members": ["m0", "m1"], "start": []}
    words = files_of(inputs, {"out": "o.fits"}, {"members": "m{0..1}", "images": "/survey"})
    assert words == "--in table='a b.fits' members=m{0..1} images=/survey --out out=o.fits"
    assert files_of({}, {"out": "o.fits"}, {}) == "--out out=o.fits"


def test_a_job_sets_its_own_options_and_names_its_wildcards():
    wildcards = {"region": "north", "block": "00003"}
    assert job_options_of("obiwan.simulate", {}, {"block": "00003"}) == (
        "--block 00003 --wildcards block=00003"
    )
    words = job_options_of("sysnet.mock", {"contamination": "none", "other": 1}, wildcards)
    assert words == "--contamination none --wildcards region=north block=00003"
    assert job_options_of("obiwan.train", {}, {}) == ""
