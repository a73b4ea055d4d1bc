"""Receipts and the manifest: collected from the jobs, checked, and independent of the machine."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

import skyproof as skyproof_package
from skyproof.core import receipts
from skyproof.core.call import Call
from skyproof.core.comm import SerialComm
from skyproof.core.errors import InputError
from skyproof.core.formats import contents
from skyproof.core.stage import _run
from skyproof.proof import collect, jobs
from skyproof.proof.manifest import MANIFEST, PROVENANCE
from skyproof.proof.report import IDENTICAL
from skyproof.proof.verify import verify
from skyproof.workflow.code import library_versions
from tests.conftest import ROOT, one_line, skyproof
from tests.unit.proof.build import edit_json, toy, write_manifest

SYSTEMS = ROOT / "tests/systems"


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """The results of a toy run without a manifest; tests work on copies."""
    folder = tmp_path_factory.mktemp("toy")
    toy(folder)
    return folder / "results"


@pytest.fixture
def results(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "results")


RECEIPT = "toy/.journal/total.json.receipt.json"


def test_a_receipt_lists_outputs_and_inputs(run):
    receipt = json.loads((run / RECEIPT).read_text())
    assert receipt["stage"] == "toy.total"
    outputs = {made["name"]: made for made in receipt["outputs"]}
    assert outputs.keys() == {"total", "copy"}
    for made in outputs.values():
        data = (run / "toy" / made["path"]).read_bytes()
        assert (made["size"], made["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    (given,) = receipt["inputs"]
    assert given["path"] == "block.json"
    assert given["sha256"] == hashlib.sha256((run / "toy/block.json").read_bytes()).hexdigest()
    assert receipt["options"]["seed"] == 20180501
    ran = receipt["run"]
    assert ran["host"] == socket.gethostname()
    assert ran["started"] <= ran["ended"]
    assert ran["command"].startswith("python -m skyproof toy.total --in indexes=")
    assert "user" not in json.dumps(receipt)


@pytest.mark.mpi
def test_ranks_are_in_the_receipt_and_not_in_the_root(tmp_path):
    for ranks in (1, 2):
        index = tmp_path / f"{ranks}/results/toy/block.json"
        result = skyproof("toy.noise", "--out", f"index={index}", ranks=ranks, toy=True)
        assert result.returncode == 0, result.stderr
        receipt = json.loads(receipts.path_of(index).read_text())
        assert receipt["run"]["ranks"] == ranks
    one, two = (write_manifest(tmp_path / f"{ranks}/results") for ranks in (1, 2))
    assert one.root == two.root


def test_a_failing_stage_leaves_no_receipt(run, tmp_path):
    shutil.copytree(run, tmp_path / "results")
    (tmp_path / "results" / RECEIPT).unlink()
    words = ["--in", "indexes=results/toy/block.json", "--out", "total=results/toy/total.json"]
    words += ["copy=results/toy/copy.npy", "--fail", "fault"]
    assert skyproof("toy.total", *words, toy=True, cwd=tmp_path).returncode == 1
    assert not (tmp_path / "results" / RECEIPT).exists()


def test_a_receipt_that_cannot_be_made_fails_no_stage(tmp_path, monkeypatch, caplog):
    """Only a failed write does; another error is a warning, and collecting the manifest fails."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(skyproof_package, "__path__", [*skyproof_package.__path__, str(SYSTEMS)])
    monkeypatch.setattr(receipts, "_receipt", fail)
    options = importlib.import_module("skyproof.toy.options").Noise()
    index = tmp_path / "block.json"
    _run(Call("toy.noise", {}, {"index": [index]}, options), SerialComm())
    assert index.is_file()
    assert "no receipt was written: ZeroDivisionError: oops" in caplog.text
    with pytest.raises(InputError, match="holds no receipt"):
        collect.collect(tmp_path, [], 1)


def test_a_receipt_that_cannot_be_written_fails_the_stage_before_its_output_appears(tmp_path):
    (tmp_path / ".journal").write_text("in the way of the folder")
    result = skyproof("toy.noise", "--out", f"index={tmp_path}/block.json", toy=True)
    assert result.returncode != 0
    assert not (tmp_path / "block.json").exists()


def test_the_manifest_names_every_product_with_its_rule(results):
    made = write_manifest(results)
    stages = {path: entry["stage"] for path, entry in made.files.items()}
    items = {f"toy/items/item{n}.npy": "toy.noise" for n in range(3)}
    finals = {"toy/total.json": "toy.total", "toy/copy.npy": "toy.total"}
    assert stages == {**items, **finals}
    for path, entry in made.files.items():
        data = (results / path).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry["class"] == "bytes"
    assert [step["stage"] for step in made.steps] == ["toy.noise", "toy.total"]
    assert made.steps[0]["outputs"] == made.steps[1]["inputs"] == ["toy/ (toy.noise)"]
    assert made.item_sets["toy/ (toy.noise)"]["items"].keys() == {"item0", "item1", "item2"}
    assert made.parents == [set(), {0}]
    assert made.content["stages"]["toy.noise"]["options"]["n_items"] == 3
    assert made.content["libraries"]["python"]
    assert made.content["locks"].keys() == {"all.lock.txt", "torch.lock.txt"}


def test_nothing_of_machine_or_time_in_the_root(results):
    made = write_manifest(results)
    text = (results / MANIFEST).read_text()
    provenance = json.loads((results / PROVENANCE).read_text())
    for word in (socket.gethostname(), str(results), str(results.parent), provenance["git"]):
        assert re.search(rf"\b{re.escape(word)}\b", text) is None
    times = {job[key][:16] for job in provenance["jobs"] for key in ("started", "ended")}
    assert not [time for time in times if time in text]
    assert made.root == hashlib.sha256((results / MANIFEST).read_bytes()).hexdigest()


def test_a_manifest_made_again_is_the_same(results):
    first = write_manifest(results)
    assert write_manifest(results).root == first.root


def test_the_partition_into_jobs_is_not_in_the_root(results, tmp_path):
    """One job of three items, three of one, two of two and one: the same root, another provenance.

    The jobs are in the provenance, with the block that each made.
    """
    root = write_manifest(results).root
    for size, n_jobs in ((1, 3), (2, 2)):
        toy(tmp_path / f"{size}", block_size=size)
        made = write_manifest(tmp_path / f"{size}/results")
        assert made.root == root
        jobs = json.loads((tmp_path / f"{size}/results" / PROVENANCE).read_text())["jobs"]
        blocks = [job["grain"] for job in jobs if job["stage"] == "toy.noise"]
        assert blocks == [{"block_size": size, "block": n} for n in range(n_jobs)]


def test_items_are_kept_under_another_partition(tmp_path):
    """They are also found: the block indexes of both partitions may be present and agree."""
    toy(tmp_path)
    items = tmp_path / "results/toy/items"
    times = {path: path.stat().st_mtime_ns for path in items.iterdir()}
    root = write_manifest(tmp_path / "results").root
    toy(tmp_path, block_size=1)
    assert {path: path.stat().st_mtime_ns for path in items.iterdir()} == times
    words = [tmp_path / "results", "--products", tmp_path / "results/toy/total.json"]
    assert skyproof("manifest", *words).returncode == 0
    assert (tmp_path / "results/toy/block.json").is_file()
    report = verify(tmp_path / "results", strict=True)
    assert (report.code, report.manifest.root) == (IDENTICAL, root)


def test_job_options_that_affect_results_make_separate_steps(results):
    """Two jobs of a stage, for which the rule set an option that affects results."""
    journal = results / "toy/.journal"
    index = json.loads((results / "toy/block.json").read_text())
    receipt = json.loads((journal / "block.json.receipt.json").read_text())
    for name, options in (("north", {"region": "north"}), ("south", {"region": "south"})):
        items = {f"{name}-0": {"info": {}, "files": []}}
        (results / f"toy/{name}.json").write_text(json.dumps({**index, "items": items}))
        made = contents.fingerprint(results / f"toy/{name}.json")
        outputs = [{"name": "index", "path": f"{name}.json", **made}]
        mine = {**receipt, "job_options": options, "outputs": outputs}
        (journal / f"{name}.json.receipt.json").write_text(json.dumps(mine))
    made = write_manifest(results)
    options = [step["options"] for step in made.steps if step["stage"] == "toy.noise"]
    assert sorted(map(str, options)) == ["{'region': 'north'}", "{'region': 'south'}", "{}"]
    assert made.item_sets["toy/ (toy.noise)"]["items"].keys() >= {"north-0", "south-0", "item0"}


def test_two_jobs_of_one_item_are_an_error(results):
    shutil.copy(results / "toy/block.json", results / "toy/again.json")
    journal = results / "toy/.journal"
    receipt = json.loads((journal / "block.json.receipt.json").read_text())
    receipt["outputs"][0]["path"] = "again.json"
    (journal / "again.json.receipt.json").write_text(json.dumps(receipt))
    with pytest.raises(InputError, match="item0: was made by another job too"):
        collect.collect(results, [], 1)


def test_products_restrict_the_manifest_to_what_they_were_made_from(results):
    content, _ = collect.collect(results, [results / "toy/block.json"], 1)
    assert [step["stage"] for step in content["steps"]] == ["toy.noise"]
    assert "toy/total.json" not in [entry["path"] for entry in content["files"]]


def a_job(name: str, reads: set[str]) -> jobs.JobReceipt:
    receipt = {"stage": "toy.total", "job_options": {}}
    return jobs.JobReceipt(name, receipt, {path: {} for path in reads}, [], {name: {}})


def test_steps_are_in_graph_order_and_by_name_where_that_leaves_a_choice(tmp_path):
    for seed in range(300):
        draw = random.Random(seed)
        names = draw.sample([f"{n:02}.npy" for n in range(30)], draw.randint(1, 30))
        reads = {
            name: set(draw.sample(names[:place], draw.randint(0, min(place, 4))))
            for place, name in enumerate(names)
        }
        expected: list[str] = []
        while len(expected) < len(names):
            ready = [name for name in names if reads[name] <= set(expected)]
            expected.append(min(set(ready) - set(expected)))
        found = jobs.Run(tmp_path, [a_job(name, reads[name]) for name in names])
        assert [job.key for (job,) in found.steps] == expected


def test_a_product_made_from_itself_is_an_error(tmp_path):
    circle = {"a.npy": {"d.npy"}, "b.npy": {"c.npy", "a.npy"}, "c.npy": {"b.npy"}, "d.npy": set()}
    found = jobs.Run(tmp_path, [a_job(name, reads) for name, reads in circle.items()])
    with pytest.raises(InputError, match=r"b\.npy: was made from itself"):
        found.steps  # noqa: B018


def change_receipt(key: str, value: object):
    def change(results: Path) -> None:
        edit_json(results / RECEIPT, lambda receipt: receipt.update({key: value}))

    return change


def alter(name: str):
    def change(results: Path) -> None:
        data = bytearray((results / name).read_bytes())
        data[-3] ^= 1
        (results / name).write_bytes(data)

    return change


def another_record_since(results: Path) -> None:
    """The first stage ran again by hand; the second was not made from this index."""
    toy(results.parent / "again", "--scale", "2")
    shutil.copy(results.parent / "again/results/toy/block.json", results / "toy")
    again = results.parent / "again/results/toy"
    shutil.copytree(again / "items", results / "toy/items", dirs_exist_ok=True)
    shutil.copy(again / ".journal/block.json.receipt.json", results / "toy/.journal")


PROBLEMS = {
    "altered output": (alter("toy/copy.npy"), "toy/copy.npy: is not what toy.total wrote"),
    "altered tree": (alter("toy/items/item1.npy"), "toy/items/item1.npy: is not what toy.noise"),
    "altered block index": (alter("toy/block.json"), "toy/block.json: is not what toy.noise wrote"),
    "truncated": (lambda r: (r / "toy/copy.npy").write_bytes(b"x"), "has another size than when"),
    "missing": (lambda r: (r / "toy/items/item1.npy").unlink(), "item1.npy: is missing"),
    "no receipt": (lambda r: (r / RECEIPT).unlink(), "toy/total.json: has no receipt of the job"),
    "damaged receipt": (
        lambda r: (r / RECEIPT).write_text("{"),
        "total.json.receipt.json: is not a valid receipt",
    ),
    "older format": (change_receipt("format", "x"), "is not a valid receipt"),
    "an input since made again": (another_record_since, "was another file when toy.total made"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_products_that_differ_from_their_receipt_are_named(results, problem):
    change, expected = PROBLEMS[problem]
    change(results)
    words = [results, "--products", results / "toy/total.json"]
    result = skyproof("manifest", *words)
    assert result.returncode == 3
    assert expected in one_line(result)
    assert not (results / MANIFEST).exists()


def test_jobs_of_a_stage_must_agree(results):
    """Half of the blocks made by other code is an error."""
    journal = results / "toy/.journal"
    shutil.copy(results / "toy/copy.npy", results / "toy/second.npy")
    receipt = json.loads((results / RECEIPT).read_text())
    (copy,) = [made for made in receipt["outputs"] if made["name"] == "copy"]
    second = {**receipt, "outputs": [{**copy, "path": "second.npy"}], "code": "0" * 16}
    (journal / "second.npy.receipt.json").write_text(json.dumps(second))
    with pytest.raises(
        InputError, match=r"toy/second\.npy: was made by toy\.total with other code"
    ):
        collect.collect(results, [], 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("numerics", "native"), ("device", "cuda"), ("notes", {"compiled": True})],
)
def test_native_numerics_a_gpu_or_a_compiler_make_class_tolerance_downstream_only(
    results, key, value
):
    change_receipt(key, value)(results)
    made = write_manifest(results)
    assert {path for path, e in made.files.items() if e["class"] == "tolerance"} == {
        "toy/total.json",
        "toy/copy.npy",
    }
    assert made.files["toy/copy.npy"]["rtol"] == 1e-5
    assert "rtol" not in made.files["toy/items/item1.npy"]
    edit_json(
        results / "toy/.journal/block.json.receipt.json",
        lambda receipt: receipt.update({key: value}),
    )
    change_receipt(key, {"numerics": "portable", "device": "cpu", "notes": {}}[key])(results)
    assert {e["class"] for e in write_manifest(results).files.values()} == {"tolerance"}


def test_inputs_from_outside_are_known_by_name_and_digest(results):
    outside = {"name": "note", "path": "../../../far/note.txt", "size": 4, "sha256": "0" * 64}
    folder = {"name": "images", "path": "../../images", "folder": True}
    edit_json(results / RECEIPT, lambda receipt: receipt["inputs"].extend([outside, folder]))
    (step,) = [step for step in write_manifest(results).steps if step["stage"] == "toy.total"]
    assert step["inputs"] == ["toy/ (toy.noise)"]
    assert step["external"] == [
        {"folder": True, "name": "images", "path": "images"},
        {"name": "note", "path": "note.txt", "sha256": "0" * 64, "size": 4},
    ]


def test_a_run_may_be_moved(results, tmp_path):
    root = write_manifest(results).root
    moved = results.rename(tmp_path / "elsewhere")
    assert write_manifest(moved).root == root


def test_hdf5_outputs_carry_a_content_digest(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["x"] = np.arange(3)
    found = contents.fingerprint(tmp_path / "a.hdf5")
    assert found["content"] == contents.content_digest(tmp_path / "a.hdf5")
    assert found["content"] != found["sha256"]


def test_library_versions_are_those_that_the_source_imports():
    """Not of the loaded modules: a resumed block imports fewer."""
    simulate, train = library_versions("obiwan.simulate"), library_versions("obiwan.train")
    assert simulate["numpy"] == np.__version__
    assert "torch" not in simulate
    assert "torch" in train
    assert "scikit-learn" in library_versions("obiwan.evaluate")
    assert not {"os", "skyproof", "sklearn", "yaml"} & (simulate.keys() | train.keys())
