"""Comparison with a reference: equal, close, different and forged runs."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from skyproof.core.formats import write
from skyproof.core.formats.contents import content_digest
from skyproof.proof import manifest
from skyproof.proof.manifest import MANIFEST, CannotVerify
from skyproof.proof.report import CANNOT, IDENTICAL, MISMATCH, WITHIN
from skyproof.proof.verify import verify
from tests.conftest import skyproof
from tests.unit.proof.build import (
    ITEM,
    edit_json,
    forge,
    forge_index,
    forged,
    text,
    toy,
    write_manifest,
)


def test_a_forged_manifest_is_found_by_comparison(made, results):
    forged(results)
    report = verify(results, made)
    assert report.code == MISMATCH
    assert f"{ITEM} differs" in text(report)


def test_an_equal_run_elsewhere_is_identical_to_folder_and_manifest(made, tmp_path):
    toy(tmp_path / "deeper/elsewhere")
    other = tmp_path / "deeper/elsewhere/results"
    assert write_manifest(other).root == manifest.read(made).root
    for reference in (made, made / MANIFEST):
        report = verify(other, reference)
        assert report.code == IDENTICAL
        assert report.lines()[0].startswith(f"identical: {other} against {reference}")


def test_the_earliest_rule_and_what_follows_from_it(made, scaled):
    report = verify(scaled, made)
    assert report.code == MISMATCH
    lines = [line.strip() for line in report.lines()]
    assert lines[0].startswith("MISMATCH: ")
    first = lines[lines.index("earliest mismatch:") :]
    assert first[1:4] == ["rule     toy_noise", "file     toy/items/item0.npy differs",
                          "data     the array"]  # fmt: skip
    assert first[4].startswith("first    [0] ")
    assert "0x" in first[4]
    assert first[5].startswith("extent   4 of 4 differ; largest difference ")
    assert first[5].endswith(" ulp")
    assert first[6:9] == ["downstream of toy.noise: 2 files", "toy/copy.npy", "toy/total.json"]
    assert "note: toy.noise had scale 2.0, in the reference 1.0" in lines
    named = [line for line in lines if line.startswith("file ")]
    assert named[-1].startswith("file     toy/ (toy.noise) has items with other facts")


def test_with_the_manifest_alone_only_digests_are_compared(made, scaled, tmp_path):
    shutil.copy(made / MANIFEST, tmp_path / "published.json")
    report = verify(scaled, tmp_path / "published.json")
    assert report.code == MISMATCH
    assert "without a reference copy (--against FOLDER) only digests can be compared" in text(
        report
    )
    assert "extent" not in text(report)


def test_a_file_of_one_run_only(made, tmp_path):
    toy(tmp_path, n_items=4)
    write_manifest(tmp_path / "results")
    assert "toy/items/item3.npy is not in the reference" in text(verify(tmp_path / "results", made))
    report = verify(made, tmp_path / "results")
    assert report.code == MISMATCH
    assert "toy/items/item3.npy is in the reference only" in text(report)


def test_an_altered_reference_is_an_error(made, scaled, tmp_path):
    reference = shutil.copytree(made, tmp_path / "reference")
    (reference / "toy/items/item0.npy").write_bytes(b"x")
    with pytest.raises(CannotVerify, match="the reference differs from its own manifest"):
        verify(scaled, reference)


def rewrite(results: Path, change: float, **surroundings: str) -> None:
    """Multiply the products of a run by 1 + change, as if another machine had made them.

    `surroundings`: the numerics of the stages, or versions of libraries.
    """
    path = results / ITEM
    write.npy(path, np.load(path) * (1 + change))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    forge_index(results, ITEM, digest)

    def entry(content):
        next(e for e in content["files"] if e["path"] == ITEM)["sha256"] = digest
        numerics = surroundings.get("numerics", "portable")
        for stage in content["stages"].values():
            stage["numerics"] = numerics
        content["libraries"] |= {k: v for k, v in surroundings.items() if k != "numerics"}
        if numerics == "native":
            for file in content["files"]:
                file |= {"class": "tolerance", **manifest.allowance(file["path"])}

    forge(results, entry)


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_a_stated_content_digest_is_not_believed(made, results, numerics):
    """Data that changed, stated to be those of the reference in another container."""
    rewrite(results, 0.5, numerics=numerics)
    stated = manifest.read(made).files[ITEM].get("content") or content_digest(made / ITEM)

    def state(content):
        for entry in content["files"]:
            if entry["path"] == ITEM:
                entry["content"] = stated

    forge(results, state)
    edit_json(results / "toy/block.json", lambda index: state_in(index, stated))
    reference = shutil.copytree(made, results.parent / "reference")
    forge(reference, state)
    report = verify(results, reference)
    assert report.code == MISMATCH
    assert "the data are equal" not in text(report)
    assert any(result.path == ITEM and result.code == MISMATCH for result in report.results)


def state_in(index: dict, stated: str) -> None:
    """State the content digest of the item's file in a block index."""
    for entry in index["items"].values():
        for file in entry["files"]:
            if f"toy/{file['path']}" == ITEM:
                file["content"] = stated


def remove_item_sets(results: Path) -> None:
    """Remove all block indexes, and the item sets of the manifest accordingly."""
    (results / "toy/block.json").unlink()
    forge(results, lambda content: content.update(trees={}))


@pytest.mark.parametrize("of_the_reference", [False, True])
def test_an_item_set_of_one_run_only_is_a_mismatch(made, results, of_the_reference):
    remove_item_sets(results)
    runs = (made, results) if of_the_reference else (results, made)
    report = verify(*runs)
    assert report.code == MISMATCH
    side = "is not in the reference" if of_the_reference else "is in the reference only"
    assert f"toy/ (toy.noise) {side}" in text(report)


@pytest.mark.parametrize("step", [-1, -2, -99, 2, 10**9, True, 0.0, None, "0"])
def test_a_file_of_no_step_is_no_valid_manifest(made, results, step):
    """A product that changed, with its checksum corrected, must not leave the comparison."""
    forged(results)

    def change(content):
        next(e for e in content["files"] if e["path"] == ITEM)["step"] = step

    forge(results, change)
    for reference in (None, made):
        with pytest.raises(CannotVerify, match="is not a valid manifest: files"):
            verify(results, reference)


@pytest.mark.parametrize("seed", range(20))
def test_the_exit_code_follows_from_every_outcome(made, results, seed):
    """Random forgeries of the steps and their links cannot hide a product that changed."""
    draw = random.Random(seed)
    forged(results)

    def change(content):
        files = [entry["path"] for entry in content["files"]]
        for step in content["steps"]:
            for key in ("inputs", "outputs"):
                step[key] = draw.sample(files, draw.randrange(len(files) + 1))
        draw.shuffle(content["files"])
        entry = next(e for e in content["files"] if e["path"] == ITEM)
        number = draw.randrange(len(content["steps"]))
        entry |= {"step": number, "stage": content["steps"][number]["stage"]}

    forge(results, change)
    report = verify(results, made)
    assert report.code == MISMATCH
    assert ITEM in {result.path for result in report.results}


@pytest.mark.parametrize(
    ("change", "surroundings", "code"),
    [
        (1e-7, {}, MISMATCH),  # equal bytes were promised
        (1e-7, {"numerics": "native"}, WITHIN),
        (1e-3, {"numerics": "native"}, MISMATCH),
        (1e-7, {"numpy": "9.9"}, WITHIN),
        (1e-3, {"numpy": "9.9"}, MISMATCH),
        (0.0, {"numpy": "9.9"}, IDENTICAL),
        (0.0, {"numerics": "native"}, IDENTICAL),
    ],
)
def test_within_tolerance_is_never_called_identical(made, results, change, surroundings, code):
    rewrite(results, change, **surroundings)
    assert verify(results).code == IDENTICAL  # by itself it is what it says
    report = verify(results, made)
    assert report.code == code
    if code == WITHIN:
        assert report.lines()[0].startswith("equal within tolerance only, not identical: ")
        assert f"file     {ITEM} differs within tolerance" in text(report)
        assert "equal bytes are guaranteed only for equal numerics and libraries" in text(report)
        assert verify(results, made, strict=True).code == MISMATCH


def test_tolerance_needs_the_files_of_the_reference(made, results, tmp_path):
    shutil.copy(made / MANIFEST, tmp_path / "published.json")
    rewrite(results, 1e-7, numerics="native")
    report = verify(results, tmp_path / "published.json")
    assert report.code == CANNOT
    assert report.lines()[0].startswith("cannot be verified: ")


def test_an_altered_file_is_never_within_tolerance(made, results):
    """Class tolerance is for other machines, not for files that changed after the run."""
    rewrite(results, 0.0, numerics="native")
    path = results / ITEM
    write.npy(path, np.load(path) * (1 + 1e-12))
    assert verify(results).code == MISMATCH
    assert verify(results, made).code == MISMATCH


# What may lie in a folder without being of the run.


def test_exit_codes_and_words_of_the_command(made, results, scaled):
    root = skyproof("root", results)
    assert (root.returncode, root.stdout) == (0, f"{manifest.read(made).root}\n")
    assert skyproof("verify", results, "--root", root.stdout.strip()).returncode == IDENTICAL
    mismatch = skyproof("verify", scaled, "--against", made)
    assert mismatch.returncode == MISMATCH
    assert "earliest mismatch:" in mismatch.stdout
    rewrite(results, 1e-7, numerics="native")
    assert skyproof("verify", results, "--against", made).returncode == WITHIN
    assert skyproof("verify", results, "--against", made, "--strict").returncode == MISMATCH
