"""A small run of the toy system, made as users make one, for the tests of the proof."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyproof.proof import collect, manifest
from tests.conftest import skyproof


def toy(folder: Path, *words: str, n_items: int = 3, **options: str) -> None:
    """Run both toy stages in `folder`, with its results in `folder/results/toy`."""
    record = "record=results/toy/block.json"
    noise = ["toy.noise", "--out", record, "--n-items", str(n_items), *words]
    total = ["toy.total", "--in", "records=results/toy/block.json"]
    total += ["--out", "total=results/toy/total.json", "copy=results/toy/copy.npy"]
    folder.mkdir(parents=True, exist_ok=True)
    for command in (noise, [*total, *(w for k, v in options.items() for w in (f"--{k}", v))]):
        result = skyproof(*command, toy=True, cwd=folder)
        assert result.returncode == 0, result.stderr


def write_manifest(results: Path) -> manifest.Manifest:
    """Collect and write the manifest of all that has a receipt."""
    return manifest.write(results, *collect.collect(results, [], 1))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, sort_keys=True, indent=1) + "\n")


def forge(results: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change manifest.json as a careful forger does: the list of checksums follows it."""

    def consistent(content: dict[str, Any]) -> None:
        change(content)
        text = manifest.sums_text(content["files"])
        (results / manifest.SUMS).write_text(text)
        content["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()

    edit_json(results / manifest.MANIFEST, consistent)
