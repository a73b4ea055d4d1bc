"""Files of the proof with an invalid form: one line with the position and the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skyproof.core.errors import InputError
from skyproof.proof import item_sets, jobs, manifest
from skyproof.proof.manifest import MANIFEST, PROVENANCE, CannotVerify
from skyproof.proof.report import MISMATCH
from skyproof.proof.verify import verify
from tests.unit.proof.build import edit_json

RECEIPT = "toy/.journal/total.json.receipt.json"


def put(value: Any, *place: Any):
    """Return a change of a JSON value: `value` at a position, or the key removed if it is None."""

    def change(content: Any) -> None:
        for part in place[:-1]:
            content = content[part]
        if value is None:
            del content[place[-1]]
        else:
            content[place[-1]] = value

    return change


NAN, LARGE = float("nan"), float("inf")
ITEM_SET = "toy/ (toy.noise)"

WRONG_MANIFESTS = {
    "older format": (put("skyproof-manifest-1", "format"), "format: expected 'skyproof-m"),
    "no format": (put(None, "format"), "format: expected 'skyproof-manifest-2', got None"),
    "no files": (put(None, "files"), "files: field required"),
    "files no list": (put({}, "files"), "files: input should be a valid list"),
    "boolean size": (put(True, "files", 1, "size"), "files.1.size: input should be a valid"),
    "negative size": (put(-1, "files", 1, "size"), "files.1.size: input should be greater than"),
    "size no integer": (put(1.0, "files", 0, "size"), "files.0.size: input should be a valid int"),
    "digest as a number": (put(3, "files", 0, "sha256"), "files.0.sha256: input should be a valid"),
    "short digest": (put("ab", "files", 0, "sha256"), "files.0.sha256: string should match"),
    "other class": (put("about", "files", 0, "class"), "files.0.class: input should be 'bytes' or"),
    "tolerance nan": (put(NAN, "files", 0, "rtol"), "files.0.rtol: input should be"),
    "tolerance infinite": (put(LARGE, "files", 0, "atol"), "files.0.atol: input should be"),
    "negative tolerance": (put(-1e-3, "files", 0, "rtol"), "files.0.rtol: input should be greater"),
    "negative step": (put(-1, "files", 0, "step"), "files.0.step: input should be greater than"),
    "step beyond": (put(9, "files", 0, "step"), "files.0: step 9 is not in the manifest"),
    "step of another stage": (put(0, "files", 0, "step"), "files.0: toy/copy.npy is not of its st"),
    "unknown stage": (put("toy.x", "steps", 0, "stage"), "steps.0: stage toy.x is not in the"),
    "stage without code": (put(None, "stages", "toy.total", "code"), "stages.toy.total.code: "),
    "item set of no stage": (put("toy.x", "trees", ITEM_SET, "stage"), "stage toy.x is not in the"),
    "item set outside": (put("../x", "trees", ITEM_SET, "folder"), "folder: string should"),
    "absolute item set": (put("/x", "trees", ITEM_SET, "folder"), "folder: string"),
    "item without digest": (put(3, "trees", ITEM_SET, "items", "item1"), "items.item1: input"),
}


@pytest.mark.parametrize("wrong", WRONG_MANIFESTS)
def test_a_manifest_of_another_form_cannot_be_verified(results, wrong):
    change, expected = WRONG_MANIFESTS[wrong]
    edit_json(results / MANIFEST, change)
    with pytest.raises(CannotVerify) as caught:
        verify(results)
    message = str(caught.value)
    assert message.startswith(f"{results / MANIFEST}: is not a valid manifest: ")
    assert expected in message
    assert "\n" not in message


WRONG_PROVENANCES = {
    "no jobs": (put([], "jobs"), "jobs: list should have at least 1 item"),
    "no end": (put(None, "jobs", 0, "ended"), "jobs.0.ended: field required"),
    "a number of jobs": (put(3, "jobs"), "jobs: input should be a valid list, got 3"),
}


@pytest.mark.parametrize("wrong", WRONG_PROVENANCES)
def test_a_provenance_of_another_form_cannot_be_read(results, wrong):
    change, expected = WRONG_PROVENANCES[wrong]
    edit_json(results / PROVENANCE, change)
    with pytest.raises(CannotVerify, match=expected):
        manifest.date_of_run(results)


WRONG_INDICES = {
    "path outside": (put("../x.npy", "items", "item1", "files", 0, "path"), "path: string should"),
    "path within outside": (put("a/../../x", "items", "item1", "files", 0, "path"), "path: string"),
    "absolute path": (put("/x.npy", "items", "item1", "files", 0, "path"), "path: string should m"),
    "boolean size": (
        put(True, "items", "item1", "files", 0, "size"),
        "size: input should be a val",
    ),
    "no checksum": (
        put(None, "items", "item1", "files", 0, "sha256"),
        "files.0.sha256: field requ",
    ),
    "no facts": (put(None, "items", "item1", "info"), "items.item1.info: field required"),
    "list of items": (put([], "items"), "items: input should be a valid dictionary, got []"),
    "no stage": (put(None, "stage"), "stage: field required"),
}


@pytest.mark.parametrize("wrong", WRONG_INDICES)
def test_a_block_index_of_another_form_is_named(results, wrong):
    """As bad input when collecting a manifest, as a mismatch when verifying a run."""
    change, expected = WRONG_INDICES[wrong]
    path = results / "toy/block.json"
    edit_json(path, change)
    with pytest.raises(InputError) as caught:
        item_sets.read(path)
    assert str(caught.value).startswith(f"{path}: is not a valid block index: ")
    assert expected in str(caught.value)
    report = verify(results)
    assert report.code == MISMATCH
    assert "toy/block.json is not a valid block index: " in "\n".join(report.lines())


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '{"format": "other", "items": 3}'])
def test_another_file_is_no_block_index(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert item_sets.read(tmp_path / "x.json") is None


@pytest.mark.parametrize("name", ["a", "a/b.c", "..a/b", "a..", ".a/...", "a b/ü"])
def test_ordinary_names_are_paths(results, name):
    change = put(name, "items", "item1", "files", 0, "path")
    edit_json(results / "toy/block.json", change)
    content = item_sets.read(results / "toy/block.json")
    assert content["items"]["item1"]["files"][0]["path"] == name


WRONG_RECEIPTS = {
    "no outputs": (put([], "outputs"), "outputs: list should have at least 1 item"),
    "no code": (put(None, "code"), "code: field required"),
    "no end": (put(None, "run", "ended"), "run.ended: field required"),
    "size as text": (put("3", "outputs", 0, "size"), "outputs.0.size: input should be a valid int"),
    "older format": (put("skyproof-receipt-1", "format"), "format: expected 'skyproof-receipt-2'"),
}


@pytest.mark.parametrize("wrong", WRONG_RECEIPTS)
def test_a_receipt_of_another_form_is_named(results, wrong):
    change, expected = WRONG_RECEIPTS[wrong]
    edit_json(results / RECEIPT, change)
    with pytest.raises(InputError) as caught:
        jobs.read_receipt(results, RECEIPT)
    assert str(caught.value).startswith(f"{results / RECEIPT}: is not a valid receipt of a job: ")
    assert expected in str(caught.value)


def test_a_list_is_no_receipt(tmp_path):
    (tmp_path / ".journal").mkdir()
    (tmp_path / ".journal/x.receipt.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="expected a JSON object"):
        jobs.read_receipt(tmp_path, ".journal/x.receipt.json")
