"""Planning and generating do not load torch (x06); each environment holds what it needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skyproof.core.options import stages, systems
from skyproof.workflow.code import reachable
from tests.conftest import ROOT, clean_environment

ALL = [f"{system}.{name}" for system in systems() for name in stages(system)]
TRAINS = {
    *("obiwan.train", "obiwan.infer"),
    *("sysnet.tune", "sysnet.train", "sysnet.infer", "sysnet.export"),
}


@pytest.mark.parametrize("stage", sorted(set(ALL) - TRAINS))
def test_stages_without_a_network_do_not_load_torch(stage):
    assert "torch" not in loaded_by(f"import skyproof.{stage}")


@pytest.mark.parametrize(
    "module",
    [
        "core.stage",
        "core.formats.write",
        "workflow.config",
        "workflow.code",
        "workflow.plan.table",
        "workflow.doctor.checks",
        "workflow.doctor.probe",
        "__main__",
        "obiwan.options",
        "obiwan.plan",
        "sysnet.options",
        "sysnet.plan",
    ],
)
def test_the_frame_loads_nothing_heavy(module):
    heavy = {"torch", "matplotlib", "astropy", "sklearn", "galsim", "pandas"}
    assert not heavy & loaded_by(f"import skyproof.{module}")


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(result.stdout.split())


DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn", "mpi4py": "mpi4py", "PIL": "pillow"}


def environment_of_stage() -> dict[str, str]:
    """Read from the rules which environment runs which stage."""
    found = {}
    for rules in (ROOT / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", rules.read_text(), flags=re.MULTILINE)[1:]:
            stage = re.search(r"python -m skyproof ([a-z]+\.[a-z]+)", rule)
            environment = re.search(r"envs/([a-z]+)\.yaml", rule)
            if stage and environment:
                found[stage[1]] = environment[1]
    return found


def third_party(module: str) -> set[str]:
    names = set()
    for name in reachable(module):
        base = ROOT / "scripts" / Path(*name.split("."))
        source = next(
            (p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None
        )
        tree = ast.parse(source.read_text()) if source else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"skyproof", "__future__"}


# Writers import their library when they are called; a stage that does not write a format
# needs none of it, and the content digest reads only what was written.
OF_WRITERS = {"matplotlib", "pyarrow", "safetensors", "h5py", "fitsio", "pillow"}


@pytest.mark.parametrize("stage", ALL)
def test_the_environment_of_a_rule_holds_what_its_stage_imports(stage):
    environment = environment_of_stage()[stage]
    locked = {
        re.split(r"[=<>\[; ]", line)[0].lower()
        for name in (environment, "torch")
        if name == environment or environment == "train"
        for line in (ROOT / f"envs/{name}.lock.txt").read_text().splitlines()
        if line and not line.startswith((" ", "#"))
    }
    wanted = {DISTRIBUTIONS.get(name, name) for name in third_party(f"skyproof.{stage}")}
    assert wanted - locked - OF_WRITERS == set()
