"""Verification of a folder by its manifest: every kind of tampering is found."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skyproof.proof import manifest
from skyproof.proof.manifest import MANIFEST, SUMS, CannotVerify
from skyproof.proof.report import CANNOT, IDENTICAL, MISMATCH
from skyproof.proof.verify import verify
from tests.conftest import launch, skyproof
from tests.unit.proof.build import (
    ITEM,
    edit_json,
    flip_a_bit,
    forge,
    forge_index,
    forged,
    text,
    toy,
    write_manifest,
)


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


def test_verifying_loads_no_torch():
    program = (
        "import sys; from skyproof.proof import commands, collect, compare, verify; "
        "from skyproof.proof.publish import bag, crate; print('torch' in sys.modules)"
    )
    assert launch([sys.executable, "-c", program]).stdout == "False\n"
