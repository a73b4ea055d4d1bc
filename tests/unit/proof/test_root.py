"""The root beside the manifest: a changed manifest or root is found."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from typing import Any

import pytest

from skyproof.core.formats import write
from skyproof.proof import manifest
from skyproof.proof.manifest import MANIFEST, ROOT, CannotVerify
from skyproof.proof.report import MISMATCH
from skyproof.proof.verify import verify
from tests.unit.proof.build import (
    text,
)

WRONG_ROOTS = {
    "absent": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "of another run": lambda path: path.write_text(manifest.root_text("0" * 64)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one line more": lambda path: path.write_text(2 * path.read_text()),
    "not text": lambda path: path.write_bytes(bytes(range(256))),
    "a link": lambda path: path.symlink_to(path.rename(path.parents[1] / "elsewhere.txt")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("wrong", WRONG_ROOTS)
def test_a_wrong_root_is_found_in_the_folder_and_in_the_reference(made, results, wrong):
    WRONG_ROOTS[wrong](results / ROOT)
    report = verify(results)
    assert report.code == MISMATCH
    assert f"{ROOT}: " in text(report)
    with pytest.raises(CannotVerify, match=f"the reference .*{ROOT}: "):
        verify(made, results)


def test_sha256sum_checks_the_root(results):
    command = ["sha256sum", "--check", "--strict", "--quiet", ROOT]
    subprocess.run(command, cwd=results, check=True, timeout=60)


def leaves(value: Any, keys: tuple = ()) -> list[tuple]:
    """Return the keys that lead to each number, text, truth value and null of a JSON value."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return [path for key, each in inner for path in leaves(each, (*keys, key))]
    return [keys]


def test_each_edit_of_a_value_of_the_manifest_is_found(results):
    """Also of options, locks, libraries and inputs, which no file in the folder repeats."""
    original = json.loads((results / MANIFEST).read_text())
    paths = leaves(original)
    assert {path[0] for path in paths} >= {"files", "libraries", "locks", "stages", "steps"}
    unseen = []
    for path in paths:
        changed = copy.deepcopy(original)
        at = changed
        for key in path[:-1]:
            at = at[key]
        value = at[path[-1]]
        at[path[-1]] = f"{value}x" if isinstance(value, str) else (value or 0) + 1
        write.json(results / MANIFEST, changed)
        try:
            found = verify(results).code == MISMATCH
        except CannotVerify:
            found = True
        if not found:
            unseen.append(path)
    assert unseen == []
