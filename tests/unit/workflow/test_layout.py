"""A listing of a system's folder is its table of contents: stages on top, all else in rooms."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

from skyproof.core.options import stages, systems
from tests.conftest import ROOT

PACKAGE = ROOT / "scripts/skyproof"

# What may lie on top of a system's folder besides its stages.
FIXED = {"__init__", "options", "plan", "network", "commands"}
# The files of a system's data model: what its products are, read and written by several stages.
DATA_MODEL = {
    "obiwan": {"survey", "dataset", "groups"},
    "sysnet": {"regions", "table", "folds"},
}
MOST_DATA_MODEL_FILES = 3


@pytest.mark.parametrize("system", systems())
def test_the_top_of_a_system_holds_its_stages_and_little_else(system):
    found = {path.stem for path in (PACKAGE / system).glob("*.py")}
    wanted = set(stages(system))
    assert wanted <= found
    others = found - wanted - FIXED
    assert others == DATA_MODEL.get(system, set())
    assert len(others) <= MOST_DATA_MODEL_FILES


@pytest.mark.parametrize("system", systems())
def test_rooms_say_what_they_are_and_hold_no_rooms(system):
    rooms = [path for path in (PACKAGE / system).iterdir() if path.is_dir()]
    for room in (path for path in rooms if path.name != "__pycache__"):
        assert (room / "__init__.py").read_text().startswith('"""'), room
        assert len(list(room.glob("*.py"))) > 1, room
        assert not list(room.glob("*/*.py")), room


def test_the_name_of_a_class_or_type_stands_for_one_thing():
    """Apart from what every system declares under the same name: the options of a stage, a plan."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        declared = path.parent.name in systems() and path.name in ("options.py", "plan.py")
        for node in ast.walk(ast.parse(path.read_text())):
            for name in classes_and_aliases(node):
                found[name].add(path.name if declared else str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def classes_and_aliases(node: ast.AST) -> list[str]:
    """Return the names of a class, or of the types that a module assigns (`Rows = dict[...]`)."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    names = [name.id for name in getattr(node, "targets", []) if isinstance(name, ast.Name)]
    return [name for name in names if re.fullmatch("[A-Z][a-z]+([A-Z][a-z]+)*", name)]
