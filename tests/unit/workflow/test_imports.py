"""Planning and generating do not load torch (x06); each environment has the needed libraries."""

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
def test_common_modules_load_no_heavy_library(module):
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


# The modules of core.formats import the library of a format when a file of it is read or written.
# What a stage needs of these follows from the functions that its own modules call.
FORMATS = "skyproof.core.formats."
LIBRARIES = {
    "hdf5": "h5py", "hdf5_attributes": "h5py", "filling_hdf5": "h5py",
    "fits_table": "fitsio", "fits_table_and_header": "fitsio", "fits_image": "fitsio",
    "fits_header": "fitsio", "fits_extension": "astropy",
    "parquet": "pyarrow", "safetensors": "safetensors", "form": "pydantic", "figure": "matplotlib",
}  # fmt: skip
CALL = re.compile(r"\b(?:read|reader|write|writers)\.(\w+)\(")


def test_the_library_of_every_format_is_named():
    """A function of read or write that imports a library is in the table above."""
    for module in ("read", "write"):
        source = (ROOT / f"scripts/skyproof/core/formats/{module}.py").read_text()
        for function in ast.parse(source).body:
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                imported = third_party_of(function)
                if imported:
                    assert LIBRARIES.get(function.name) in imported, function.name


def source_of(module: str) -> str:
    base = ROOT / "scripts" / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.read_text()
    return ""


def third_party_of(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"skyproof", "__future__"}


def needed_by(stage: str) -> set[str]:
    """Return what the modules of a stage import, and the libraries of the formats they call."""
    names = {"numpy"}
    for module in reachable(f"skyproof.{stage}"):
        if not module.startswith(FORMATS):
            source = source_of(module)
            names |= third_party_of(ast.parse(source))
            names |= {LIBRARIES[call] for call in CALL.findall(source) if call in LIBRARIES}
    return {DISTRIBUTIONS.get(name, name) for name in names}


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
    assert needed_by(stage) - locked == set()
