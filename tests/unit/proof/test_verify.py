"""Verification: every kind of tampering is found; equal, close and different runs."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skyproof.core.formats import write
from skyproof.core.formats.contents import content_digest
from skyproof.proof import manifest
from skyproof.proof.manifest import MANIFEST, ROOT, SUMS, CannotVerify
from skyproof.proof.report import CANNOT, IDENTICAL, MISMATCH, WITHIN, Report
from skyproof.proof.verify import verify
from tests.conftest import launch, skyproof
from tests.unit.proof.build import edit_json, forge, forge_index, toy, write_manifest

ITEM = "toy/items/item1.npy"


@pytest.fixture
def results(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "results", symlinks=True)


def text(report: Report) -> str:
    return "\n".join(report.lines())


def test_an_untouched_run_is_identical(results):
    report = verify(results)
    assert report.code == IDENTICAL
    assert report.lines() == [f"identical: {results}, 5 files, 0.0 MB, root {report.manifest.root}"]


def test_sha256sum_reads_the_list(results):
    command = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
    subprocess.run(command, cwd=results, check=True, timeout=60)
    names = [line.split("  ", 1)[1] for line in (results / SUMS).read_text().splitlines()]
    assert names == sorted(names, key=str.encode)
    assert {ITEM, "toy/total.json"} <= set(names)


# Tampering: each takes the folder of results, and gives what the report must name.


def flip_a_bit(results: Path) -> str:
    path = results / ITEM
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    return f"{ITEM} has another SHA-256"


def flip_a_bit_and_keep_the_time(results: Path) -> str:
    times = (results / ITEM).stat()
    found = flip_a_bit(results)
    os.utime(results / ITEM, ns=(times.st_atime_ns, times.st_mtime_ns))
    return found


def truncate(results: Path) -> str:
    path = results / ITEM
    path.write_bytes(path.read_bytes()[:-8])
    return f"{ITEM} has 152 bytes, in the manifest 160"


def swap_two_files(results: Path) -> str:
    one, two = results / ITEM, results / "toy/items/item2.npy"
    a, b = one.read_bytes(), two.read_bytes()
    assert len(a) == len(b)
    one.write_bytes(b)
    two.write_bytes(a)
    return f"{ITEM} has another SHA-256"


def add_a_file(results: Path) -> str:
    (results / "toy/items/item9.npy").write_bytes(b"more")
    return "extra    toy/items/item9.npy: is not in the manifest"


def remove_a_file(results: Path) -> str:
    (results / ITEM).unlink()
    return f"{ITEM} is missing"


def remove_a_line(results: Path) -> str:
    lines = (results / SUMS).read_text().splitlines(keepends=True)
    (results / SUMS).write_text("".join(line for line in lines if ITEM not in line))
    return f"{SUMS}: does not have the SHA-256 that {MANIFEST} holds"


def empty_the_list(results: Path) -> str:
    (results / SUMS).write_text("")
    return f"{SUMS}: does not have the SHA-256"


def remove_a_line_and_its_file(results: Path) -> str:
    (results / ITEM).unlink()
    return remove_a_line(results)


def forge_a_line(results: Path) -> str:
    flip_a_bit(results)
    digest = hashlib.sha256((results / ITEM).read_bytes()).hexdigest()
    lines = (results / SUMS).read_text().splitlines()
    lines = [f"{digest}  {ITEM}" if line.endswith(ITEM) else line for line in lines]
    (results / SUMS).write_text("\n".join(lines) + "\n")
    return f"{SUMS}: does not have the SHA-256"


def change_a_class(results: Path) -> str:
    forge(results, lambda content: content["files"][2].update({"class": "tolerance", "rtol": 1.0}))
    return (
        "is stated to be of class tolerance {'rtol': 1.0}, which does not follow from the numerics"
    )


def link_to_a_file(results: Path) -> str:
    (results / ITEM).rename(results.parent / "elsewhere.npy")
    (results / ITEM).symlink_to(results.parent / "elsewhere.npy")
    return f"{ITEM} is a symbolic link"


def link_to_a_folder(results: Path) -> str:
    (results / "toy/items").rename(results.parent / "items")
    (results / "toy/items").symlink_to(results.parent / "items")
    return f"{ITEM} is missing"


def lead_out_of_the_folder(results: Path) -> str:
    (results / ITEM).rename(results.parent / "outside.npy")

    def change(content):
        next(e for e in content["files"] if e["path"] == ITEM)["path"] = "../outside.npy"

    forge(results, change)
    return "'../outside.npy': leads out of the folder"


def rename_by_case(results: Path) -> str:
    (results / ITEM).rename(results / "toy/items/Item1.npy")
    return f"{ITEM} is missing; toy/items/Item1.npy is there, whose name differs in upper and lower"


def change_the_facts_in_a_block_index(results: Path) -> str:
    edit_json(
        results / "toy/block.json",
        lambda content: content["items"]["item1"]["info"].update({"first": 0.5}),
    )
    return "toy/block.json has other facts of item1 than its stage wrote"


def change_a_checksum_in_a_block_index(results: Path) -> str:
    forge_index(results, ITEM, "0" * 64)
    return f"toy/block.json has other checksums of {ITEM} (item item1) than the manifest"


def take_an_item_from_a_record(results: Path) -> str:
    edit_json(results / "toy/block.json", lambda content: content["items"].pop("item0"))
    return "toy/ (toy.noise) is incomplete: no valid block index lists item0"


def add_an_item_to_a_record(results: Path) -> str:
    edit_json(
        results / "toy/block.json",
        lambda content: content["items"].update({"item9": content["items"]["item1"]}),
    )
    return "toy/block.json lists item9, which is not in the manifest"


def remove_a_record(results: Path) -> str:
    (results / "toy/block.json").unlink()
    return "toy/ (toy.noise) is incomplete: no valid block index lists item0 and 2 more items"


def damage_a_record(results: Path) -> str:
    (results / "toy/block.json").write_text("{")
    return "extra    toy/block.json: is not in the manifest"


def list_a_file_twice(results: Path) -> str:
    forge(results, lambda content: content["files"].append(dict(content["files"][2])))
    return f"{ITEM}: is listed 2 times"


def hide_a_file_among_the_manifest(results: Path) -> str:
    (results / "toy/manifest.json").write_text("{}")
    return "extra    toy/manifest.json"


TAMPERING = [
    flip_a_bit,
    flip_a_bit_and_keep_the_time,
    truncate,
    swap_two_files,
    add_a_file,
    remove_a_file,
    remove_a_line,
    empty_the_list,
    remove_a_line_and_its_file,
    forge_a_line,
    change_a_class,
    link_to_a_file,
    link_to_a_folder,
    lead_out_of_the_folder,
    rename_by_case,
    change_the_facts_in_a_block_index,
    change_a_checksum_in_a_block_index,
    take_an_item_from_a_record,
    add_an_item_to_a_record,
    remove_a_record,
    damage_a_record,
    list_a_file_twice,
    hide_a_file_among_the_manifest,
]


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda tamper: tamper.__name__)
def test_tampering_is_found_and_named(results, tamper):
    expected = tamper(results)
    report = verify(results)
    assert report.code == MISMATCH
    assert report.lines()[0].startswith("MISMATCH: ")
    assert expected in text(report)


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


def forged(results: Path) -> None:
    """Alter a product and all lists of checksums accordingly."""
    flip_a_bit(results)
    digest = hashlib.sha256((results / ITEM).read_bytes()).hexdigest()
    forge_index(results, ITEM, digest)

    def change(content):
        next(e for e in content["files"] if e["path"] == ITEM)["sha256"] = digest

    forge(results, change)


def weakened(results: Path) -> None:
    """Make all products of class tolerance, as if the run had been native."""

    def change(content):
        for stage in content["stages"].values():
            stage["numerics"] = "native"
        for entry in content["files"]:
            entry |= {"class": "tolerance", **manifest.allowance(entry["path"])}

    forge(results, change)


@pytest.mark.parametrize("forgery", [forged, weakened])
def test_a_forged_manifest_is_found_by_the_published_root_only(made, results, forgery):
    published = manifest.read(made).root
    forgery(results)
    assert verify(results).code == IDENTICAL
    report = verify(results, root=published)
    assert report.code == MISMATCH
    assert f"the published one {published}" in text(report)
    assert verify(made, root=published.upper()).code == IDENTICAL


def test_a_forged_manifest_is_found_by_comparison(made, results):
    forged(results)
    report = verify(results, made)
    assert report.code == MISMATCH
    assert f"{ITEM} differs" in text(report)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"format": "other"}', '{"format": "skyproof-manifest-1"}']
)
def test_without_a_manifest_nothing_can_be_verified(results, content):
    if content is None:
        (results / MANIFEST).unlink()
    else:
        (results / MANIFEST).write_text(content)
    with pytest.raises(CannotVerify, match=r"manifest\.json"):
        verify(results)
    result = skyproof("verify", results)
    assert result.returncode == CANNOT
    assert "cannot be verified" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [[], ["--no-such-option"], ["absent"]])
def test_a_wrong_command_line_has_exit_code_3(words):
    """argparse would exit with 2, which means 'within tolerance' here."""
    assert skyproof("verify", *words).returncode == CANNOT


# Two runs.


def test_an_equal_run_elsewhere_is_identical_to_folder_and_manifest(made, tmp_path):
    toy(tmp_path / "deeper/elsewhere")
    other = tmp_path / "deeper/elsewhere/results"
    assert write_manifest(other).root == manifest.read(made).root
    for reference in (made, made / MANIFEST):
        report = verify(other, reference)
        assert report.code == IDENTICAL
        assert report.lines()[0].startswith(f"identical: {other} against {reference}")


@pytest.fixture(scope="session")
def scaled(tmp_path_factory) -> Path:
    """The results of the toy run with another option of its first stage."""
    folder = tmp_path_factory.mktemp("scaled")
    toy(folder, "--scale", "2")
    write_manifest(folder / "results")
    return folder / "results"


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


def test_logs_and_the_manifests_own_files_are_no_products(results):
    for name in ("toy/logs/events", "toy/ckpts/step", "toy/prof/trace.json", "report.zip"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text("any")
    assert verify(results).code == IDENTICAL


def test_products_of_an_earlier_configuration_are_named_and_fail_only_a_strict_check(tmp_path):
    toy(tmp_path, n_items=4)
    toy(tmp_path, n_items=3)
    results = tmp_path / "results"
    write_manifest(results)
    left = results / "toy/items/item3.npy"
    report = verify(results)
    assert report.code == IDENTICAL
    assert "note: there are products of earlier configurations" in text(report)
    assert verify(results, strict=True).code == MISMATCH
    left.write_bytes(left.read_bytes() + b"x")
    assert verify(results).code == MISMATCH


def test_unfinished_files_of_a_killed_process_are_named(results):
    (results / "toy/.tmp-host-1.total.json").write_text("half")
    report = verify(results)
    assert report.code == IDENTICAL
    assert "note: there are unfinished files of a killed process" in text(report)
    assert verify(results, strict=True).code == MISMATCH


# The command line.


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


def test_verifying_loads_no_torch():
    program = (
        "import sys; from skyproof.proof import commands, collect, compare, verify; "
        "from skyproof.proof.publish import bag, crate; print('torch' in sys.modules)"
    )
    assert launch([sys.executable, "-c", program]).stdout == "False\n"
