"""A small run of the toy system, through the command line, for the tests of the proof."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyproof.proof import collect, manifest
from skyproof.proof.report import Report
from tests.conftest import skyproof

ITEM = "toy/items/item1.npy"


def toy(folder: Path, *words: str, n_items: int = 3, block_size: int = 99, **options: str) -> None:
    """Run both toy stages in `folder`, with its results in `folder/results/toy`.

    The first is one job with the index `block.json`, or several with `block-0.json`, ....
    """
    size = ["--n-items", str(n_items), "--block-size", str(block_size)]
    blocks = range(-(-n_items // block_size))
    names = [f"block-{n}.json" for n in blocks] if len(blocks) > 1 else ["block.json"]
    commands = [
        ["toy.noise", "--out", f"index=results/toy/{name}", "--block", str(n), *size, *words]
        for n, name in enumerate(names)
    ]
    total = ["toy.total", "--in", *(f"indexes=results/toy/{name}" for name in names)]
    total += ["--out", "total=results/toy/total.json", "copy=results/toy/copy.npy"]
    folder.mkdir(parents=True, exist_ok=True)
    for command in (*commands, [*total, *(w for k, v in options.items() for w in (f"--{k}", v))]):
        result = skyproof(*command, toy=True, cwd=folder)
        assert result.returncode == 0, result.stderr


def write_manifest(results: Path) -> manifest.Manifest:
    """Collect and write the manifest of all jobs with a receipt."""
    return manifest.write(results, *collect.collect(results, [], 1))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, sort_keys=True, indent=1) + "\n")


def forge_index(results: Path, name: str, digest: str) -> None:
    """Change the SHA-256 of a file in the block index of the toy run."""

    def change(content: dict[str, Any]) -> None:
        for entry in content["items"].values():
            for made in entry["files"]:
                if f"toy/{made['path']}" == name:
                    made["sha256"] = digest

    edit_json(results / "toy/block.json", change)


def forge(results: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change manifest.json, and the list of checksums and the root accordingly."""

    def consistent(content: dict[str, Any]) -> None:
        change(content)
        text = manifest.sums_text(content["files"])
        (results / manifest.SUMS).write_text(text)
        content["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()

    edit_json(results / manifest.MANIFEST, consistent)
    write_root(results)


def write_root(results: Path) -> None:
    """Write the root of manifest.json, as it is now, into root.txt."""
    data = (results / manifest.MANIFEST).read_bytes()
    (results / manifest.ROOT).write_text(manifest.root_text(hashlib.sha256(data).hexdigest()))


def flip_a_bit(results: Path) -> str:
    """Change a bit of a product; return what the report must name."""
    path = results / ITEM
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    return f"{ITEM} has another SHA-256"


def forged(results: Path) -> None:
    """Alter a product and all lists of checksums accordingly."""
    flip_a_bit(results)
    digest = hashlib.sha256((results / ITEM).read_bytes()).hexdigest()
    forge_index(results, ITEM, digest)

    def change(content):
        next(e for e in content["files"] if e["path"] == ITEM)["sha256"] = digest

    forge(results, change)


def text(report: Report) -> str:
    """Return the lines of a report as one text."""
    return "\n".join(report.lines())
