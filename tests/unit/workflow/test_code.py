"""The code digest of a stage covers what it imports, and nothing else."""

from __future__ import annotations

import ast
import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skyproof.core.options import options_model, stages, systems
from skyproof.workflow.code import code_digest, imports_of, reachable
from tests.conftest import ROOT, clean_environment

PACKAGE = ROOT / "scripts/skyproof"
SHARED = ("core", "sky", "learn", "assess")  # what a system may import
ALL = [f"{system}.{name}" for system in systems() for name in stages(system)]


def digests(scripts: Path) -> dict[str, str]:
    """Digests in a new process, from a copy of the sources."""
    program = "from skyproof.workflow.code import code_digest as digest\n"
    program += f"for stage in {ALL!r}: print(stage, digest(stage))"
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean_environment(), "PYTHONPATH": str(scripts)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return dict(line.split() for line in printed.splitlines())


@pytest.fixture
def scripts(tmp_path):
    shutil.copytree(ROOT / "scripts/skyproof", tmp_path / "skyproof")
    return tmp_path


def changed_by(scripts: Path, module: str) -> set[str]:
    before = digests(scripts)
    path = scripts / module
    path.write_text(path.read_text() + "# one more line\n")
    after = digests(scripts)
    return {stage for stage in ALL if before[stage] != after[stage]}


def test_a_line_in_a_stage_changes_that_stage_alone(scripts):
    assert changed_by(scripts, "skyproof/obiwan/simulate.py") == {"obiwan.simulate"}
    assert changed_by(scripts, "skyproof/obiwan/evaluate.py") == {"obiwan.evaluate"}


def test_a_line_in_an_imported_module_changes_its_importers(scripts):
    changed = changed_by(scripts, "skyproof/obiwan/network.py")
    assert changed == {"obiwan.train", "obiwan.infer"}


def test_options_and_runner_are_not_part_of_it(scripts):
    """Their values are parameters of the rule: an edit of another option runs nothing again."""
    assert changed_by(scripts, "skyproof/obiwan/options.py") == set()
    assert changed_by(scripts, "skyproof/core/stage.py") == set()


@pytest.mark.parametrize("stage", ALL)
def test_systems_do_not_touch_each_other_and_imports_go_down(stage):
    system = stage.split(".")[0]
    for module in reachable(f"skyproof.{stage}"):
        parts = module.split(".")
        assert parts[1:2] in ([], *([floor] for floor in SHARED), [system]), module


def test_floors():
    """core knows no other room; the rooms of floor 2 know core only, not each other or a system."""
    for room in ("core", *SHARED[1:], "proof", "containers"):
        for path in (PACKAGE / room).rglob("*.py"):
            module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            for found in reachable(module.removesuffix(".__init__")):
                known = found == "skyproof" or found.split(".")[1] in ("core", room)
                assert known, (module, found)


# The floors of the package: an import goes down or stays in its room. The workflow reaches the
# systems by importlib alone.
FLOORS = [
    {"core"},
    {*SHARED[1:], "proof", "containers"},
    set(systems()),
    {"workflow"},
    {"__main__"},
]


def module_names() -> set[str]:
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {".".join(path.parts).removesuffix(".__init__") for path in paths}


MODULES = module_names()


def needs(module: str) -> set[str]:
    """Return the modules of the package that a module imports.

    `from package import module` needs the module, and `package` where it takes another name.
    """
    found = set()
    for name, parts in imports_of(module):
        below = {f"{name}.{part}" for part in parts}
        found |= below & MODULES
        if name in MODULES and (not parts or below - MODULES):
            found.add(name)
    return found - {module}


def test_imports_make_no_circle():
    """Imports within functions count; those under TYPE_CHECKING do not."""
    assert len(MODULES) > 150
    graph = {module: needs(module) for module in sorted(MODULES)}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_goes_up_or_to_a_neighbour(module):
    room = module.split(".")[1:2]
    if not room:
        return
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room[0] in rooms)
    allowed = {room[0]}.union(*FLOORS[:floor])
    for found in needs(module) - {"skyproof"}:
        assert found.split(".")[1] in allowed, (module, found)


# How the ranks of a stage share its work.
SHARING = {"comm", "each"}


@pytest.mark.parametrize("stage", ALL)
def test_a_stage_is_serial_unless_its_ranks_share_the_work(stage):
    """A serial stage knows no ranks; a parallel one divides its work."""
    path = PACKAGE.parent / Path("skyproof", *stage.split(".")).with_suffix(".py")
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("context")
    }
    assert options_model(stage).parallel == bool(SHARING & used)


def test_digest_is_short_and_stable():
    assert code_digest("obiwan.simulate") == code_digest("obiwan.simulate")
    assert len(code_digest("obiwan.simulate")) == 16
