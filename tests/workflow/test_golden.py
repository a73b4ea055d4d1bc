"""The tiny run against the checksums in tests/golden: numbers change on purpose only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from skyproof.core import products
from skyproof.proof import manifest
from tests.conftest import ROOT

pytestmark = pytest.mark.workflow

GOLDEN = ROOT / "tests/golden/tiny.json"
REFRESH = "SKYPROOF_REFRESH_GOLDEN"  # set by `make golden`


def essence(folder: Path) -> dict[str, Any]:
    """Return the checksums of a run's products and what they depend on besides our code."""
    content = manifest.read(folder / "results").content
    return {
        "libraries": content["libraries"],
        "products": {entry["path"]: entry["sha256"] for entry in content["files"]},
    }


def difference(found: dict[str, Any], golden: dict[str, Any]) -> str:
    """Return what a person should know of the difference, in the order of the graph; or nothing."""
    lines = []
    for kind in ("libraries", "products"):
        for name in sorted(golden[kind].keys() | found[kind].keys()):
            before, now = (each[kind].get(name, "absent") for each in (golden, found))
            if before != now:
                lines.append(f"{kind}: {name}: {before[:16]} became {now[:16]}")
    if lines and lines[0].startswith("libraries"):
        lines.insert(0, "other versions of libraries may write other bytes; equal ones must not:")
    return "\n".join(lines)


def test_the_tiny_run_makes_the_golden_products(tiny):
    found = essence(tiny)
    if os.environ.get(REFRESH):
        products.write_json(GOLDEN, found)
    assert difference(found, json.loads(GOLDEN.read_text())) == "", "on purpose? make golden"


def test_a_difference_is_named():
    golden = {"libraries": {"numpy": "2"}, "products": {"a": "0" * 64, "b": "1" * 64}}
    found = {"libraries": {"numpy": "2"}, "products": {"a": "0" * 64, "c": "1" * 64}}
    assert difference(golden, golden) == ""
    assert difference(found, golden).splitlines() == [
        f"products: b: {'1' * 16} became absent",
        f"products: c: absent became {'1' * 16}",
    ]
    found = {**golden, "libraries": {"numpy": "3"}}
    assert difference(found, golden).splitlines() == [
        "other versions of libraries may write other bytes; equal ones must not:",
        "libraries: numpy: 2 became 3",
    ]
