"""The tiny runs against the checksums in tests/golden, which change only on purpose."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skyproof.core.formats import write
from skyproof.proof import manifest
from tests.conftest import ROOT

pytestmark = pytest.mark.workflow

GOLDEN = ROOT / "tests/golden"
REFRESH = "SKYPROOF_REFRESH_GOLDEN"  # set by `make golden`


def essence(folder: Path) -> dict[str, Any]:
    """Return the checksums of a run's products and the versions of libraries.

    The entries of items in block indexes (counts, footprints) are products as files are.
    """
    made = manifest.read(folder / "results")
    files = {path: entry["sha256"] for path, entry in made.files.items()}
    facts = {
        f"{name} {item}": digest
        for name, tree in made.item_sets.items()
        for item, digest in tree["items"].items()
    }
    return {"libraries": made.content["libraries"], "products": files | facts}


def difference(found: dict[str, Any], golden: dict[str, Any]) -> str:
    """Return the names of differing products, and differing libraries as a possible reason."""
    lines = {kind: list(changes(found[kind], golden[kind])) for kind in ("libraries", "products")}
    if lines["products"] and lines["libraries"]:
        lines["libraries"].insert(0, "libraries differ, which may be why:")
    return "\n".join([*lines["libraries"], *lines["products"]] if lines["products"] else [])


def changes(found: dict[str, str], golden: dict[str, str]) -> Iterator[str]:
    for name in sorted(golden.keys() | found.keys()):
        before, now = (each.get(name, "absent") for each in (golden, found))
        if before != now:
            yield f"{name}: {before[:16]} became {now[:16]}"


@pytest.mark.parametrize("name", ["tiny", "tiny_sysnet"])
def test_the_tiny_run_makes_the_golden_products(name, request):
    found, golden = essence(request.getfixturevalue(name)), GOLDEN / f"{name}.json"
    if os.environ.get(REFRESH):
        write.json(golden, found)
    assert difference(found, json.loads(golden.read_text())) == "", "on purpose? make golden"


def test_a_difference_is_named():
    golden = {"libraries": {"numpy": "2"}, "products": {"a": "0" * 64, "b": "1" * 64}}
    found = {"libraries": {"numpy": "2"}, "products": {"a": "0" * 64, "c": "1" * 64}}
    assert difference(golden, golden) == ""
    lines = [f"b: {'1' * 16} became absent", f"c: absent became {'1' * 16}"]
    assert difference(found, golden).splitlines() == lines
    found["libraries"] = {"numpy": "3"}
    why = ["libraries differ, which may be why:", "numpy: 2 became 3"]
    assert difference(found, golden).splitlines() == why + lines
    assert difference({**golden, "libraries": {}}, golden) == ""
