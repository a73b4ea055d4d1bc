"""Publication: the signature of the root, a BagIt bag, a Workflow Run RO-Crate."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import bagit
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from skyproof.proof import manifest
from skyproof.proof.manifest import MANIFEST, SIGNATURE
from skyproof.proof.report import CANNOT, IDENTICAL, MISMATCH
from skyproof.proof.verify import verify
from tests.conftest import one_line, skyproof
from tests.unit.proof.build import forge


def write_keys(folder: Path, name: str, key: Any) -> tuple[Path, Path]:
    private = folder / f"{name}.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = folder / f"{name}.pub.pem"
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def keys(tmp_path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "mine", ed25519.Ed25519PrivateKey.generate())


def test_a_signed_root_verifies_by_the_public_key(results, keys):
    private, public = keys
    signed = skyproof("root", results, "--sign", private)
    assert (signed.returncode, signed.stdout.strip()) == (0, manifest.read(results).root)
    assert skyproof("verify", results, "--public-key", public).returncode == IDENTICAL


def test_a_signature_with_another_key_is_not_valid(results, keys, tmp_path):
    private, public = keys
    assert skyproof("root", results, "--sign", private).returncode == 0
    forge(results, lambda content: content["libraries"].update({"numpy": "0"}))
    report = verify(results, public_key=public)
    assert report.code == MISMATCH
    assert "the signature is not by mine.pub.pem over the root" in report.lines()[1]
    other, _ = write_keys(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())
    assert skyproof("root", results, "--sign", other).returncode == 0  # the forger signs anew
    assert verify(results, public_key=public).code == MISMATCH


def test_a_signature_that_cannot_be_checked_is_not_valid(results, keys, tmp_path):
    _, public = keys
    unsigned = skyproof("verify", results, "--public-key", public)
    assert unsigned.returncode == CANNOT
    assert SIGNATURE in unsigned.stderr
    (results / SIGNATURE).write_text("no hex")
    assert skyproof("verify", results, "--public-key", public).returncode == CANNOT
    assert skyproof("verify", results, "--public-key", tmp_path / "absent").returncode == CANNOT


def test_other_kinds_of_keys_are_errors(results, keys, tmp_path):
    private, public = write_keys(tmp_path, "curve", ec.generate_private_key(ec.SECP256R1()))
    for key in (private, public, tmp_path / "absent"):
        result = skyproof("root", results, "--sign", key)
        assert result.returncode == 3
        assert str(key) in one_line(result)
    assert not (results / SIGNATURE).exists()


# The bag.


def test_a_bag_holds_the_run_and_validates_by_bagit_and_by_us(results, tmp_path):
    (results / "toy/logs").mkdir()
    (results / "toy/logs/events").write_text("any")
    result = skyproof("bag", results)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "results-bag"
    bag = bagit.Bag(str(folder))
    bag.validate()
    root = manifest.read(results).root
    assert bag.info["External-Identifier"] == f"sha256:{root}"
    assert verify(folder / "data").code == IDENTICAL
    assert manifest.read(folder / "data").root == root
    packed = {path for path in bag.payload_files() if "/toy/" in path}
    indexes = {"data/toy/block.json"}
    assert packed == {f"data/{path}" for path in manifest.read(results).files} | indexes


def test_the_same_run_gives_the_same_bag_on_any_day(results, tmp_path):
    for name in ("one", "two"):
        assert skyproof("bag", results, "--to", tmp_path / name).returncode == 0
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes()
         for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )  # fmt: skip
    assert one == two
    info = (tmp_path / "one/bag-info.txt").read_text()
    day = json.loads((results / "provenance.json").read_text())["jobs"][-1]["ended"][:10]
    assert f"Bagging-Date: {day}\n" in info


def test_an_altered_run_is_not_packed(results, tmp_path):
    (results / "toy/copy.npy").write_bytes(b"x")
    result = skyproof("bag", results, "--to", tmp_path / "bag")
    assert result.returncode == 3
    assert "does not verify: MISMATCH" in one_line(result)
    assert not (tmp_path / "bag").exists()


def test_an_existing_folder_is_left_alone(results, tmp_path):
    (tmp_path / "bag").mkdir()
    result = skyproof("bag", results, "--to", tmp_path / "bag")
    assert result.returncode == 3
    assert "exists already" in one_line(result)


# The crate. What the profiles demand with MUST, by their tables of requirements:
# Process, Workflow and Provenance Run Crate 0.5, Workflow RO-Crate 1.0, RO-Crate 1.1.

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/ro/wfrun/provenance/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
}


@pytest.fixture(scope="session")
def crate(made, tmp_path_factory) -> Path:
    folder = shutil.copytree(made, tmp_path_factory.mktemp("crate") / "results")
    author = "Ada Lovelace <https://orcid.org/0000-0002-1825-0097>"
    result = skyproof("crate", folder, "--author", author)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def graph(crate) -> dict[str, dict[str, Any]]:
    document = json.loads((crate / "ro-crate-metadata.json").read_text())
    entities = document["@graph"]
    assert document["@context"][:2] == [
        "https://w3id.org/ro/crate/1.1/context",
        "https://w3id.org/ro/terms/workflow-run/context",
    ]
    found = {entity["@id"]: entity for entity in entities}
    assert len(found) == len(entities)
    return found


def ids(value: Any) -> list[str]:
    """Return the identifiers to which a property refers."""
    values = value if isinstance(value, list) else [value]
    return [v["@id"] for v in values if isinstance(v, dict)]


def of_type(graph: dict[str, dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [e for e in graph.values() if kind in (e["@type"], *e["@type"])]


def kinds(entity: dict[str, Any]) -> set[str]:
    return {entity["@type"]} if isinstance(entity["@type"], str) else set(entity["@type"])


def test_crate_the_root_states_its_profiles_and_can_be_cited(graph):
    root, descriptor = graph["./"], graph["ro-crate-metadata.json"]
    assert kinds(root) == {"Dataset"}
    assert ids(descriptor["about"]) == ["./"]
    assert "https://w3id.org/ro/crate/1.1" in ids(descriptor["conformsTo"])
    assert "https://w3id.org/workflowhub/workflow-ro-crate/1.0" in ids(descriptor["conformsTo"])
    assert set(ids(root["conformsTo"])) == PROFILES
    assert all(kinds(graph[url]) == {"CreativeWork"} for url in PROFILES)
    assert root["name"]
    assert root["description"]
    assert len(root["datePublished"]) == 10
    assert ids(root["license"])[0] in graph
    assert graph[ids(root["author"])[0]]["name"] == "Ada Lovelace"


def test_crate_every_reference_within_it_is_described(graph):
    referred = {i for e in graph.values() for key, v in e.items() if key[0] != "@" for i in ids(v)}
    assert {i for i in referred if not i.startswith(("http://", "https://"))} <= graph.keys()


def test_crate_its_files_are_there_and_are_its_parts(graph, crate):
    files = {e["@id"] for e in of_type(graph, "File")} - {"ro-crate-metadata.json"}
    assert files == set(ids(graph["./"]["hasPart"]))
    assert {"workflow/Snakefile", "toy/total.json", MANIFEST} <= files
    for name in files:
        assert (crate / name).is_file(), name
    digest = manifest.read(crate).files["toy/total.json"]["sha256"]
    assert graph["toy/total.json"]["sha256"] == digest


def test_crate_the_workflow_with_its_tools_and_steps(graph):
    (main,) = ids(graph["./"]["mainEntity"])
    workflow = graph[main]
    assert kinds(workflow) == {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"}
    (language,) = ids(workflow["programmingLanguage"])
    assert kinds(graph[language]) == {"ComputerLanguage"}
    tools = ids(workflow["hasPart"])
    assert tools == ["#tool/toy.noise", "#tool/toy.total"]
    assert all(kinds(graph[tool]) == {"SoftwareApplication"} for tool in tools)
    steps = [graph[step] for step in ids(workflow["step"])]
    assert [ids(step["workExample"])[0] for step in steps] == tools
    assert [step["position"] for step in steps] == [0, 1]
    assert all(kinds(step) == {"HowToStep"} for step in steps)
    locks = ids(workflow["buildInstructions"])
    assert "workflow/envs/all.lock.txt" in locks


def test_crate_every_job_with_inputs_parameters_results_and_times(graph):
    workflow = ids(graph["./"]["mainEntity"])
    actions = {e["@id"]: e for e in of_type(graph, "CreateAction")}
    assert set(ids(graph["./"]["mentions"])) == set(actions)
    runs = [e for e in actions.values() if ids(e["instrument"]) == workflow]
    assert len(runs) == 1
    (total,) = (e for e in actions.values() if ids(e["instrument"]) == ["#tool/toy.total"])
    assert "toy/block.json" in ids(total["object"])
    assert sorted(ids(total["result"])) == ["toy/copy.npy", "toy/total.json"]
    assert total["description"].startswith("python -m skyproof toy.total --in indexes=")
    for action in actions.values():
        assert action["startTime"] <= action["endTime"]
        assert {"File", "CreativeWork", "PropertyValue"} >= {
            kind for i in ids(action["object"]) for kind in kinds(graph[i])
        }
    (noise,) = (e for e in actions.values() if ids(e["instrument"]) == ["#tool/toy.noise"])
    values = {graph[i]["name"]: graph[i] for i in ids(noise["object"])}
    assert values["toy.noise n_items"]["value"] == "3"
    assert ids(values["toy.noise n_items"]["exampleOfWork"]) == ["#parameter/toy.noise/n_items"]
    assert graph["#parameter/toy.noise/n_items"]["additionalType"] == "Integer"
    for parameter in of_type(graph, "FormalParameter"):
        assert parameter["additionalType"]


def test_crate_the_engine_and_its_orchestration(graph):
    controls = of_type(graph, "ControlAction")
    assert len(controls) == 2
    for control in controls:
        assert kinds(graph[ids(control["instrument"])[0]]) == {"HowToStep"}
        assert kinds(graph[ids(control["object"])[0]]) == {"CreateAction"}
    (organize,) = of_type(graph, "OrganizeAction")
    assert kinds(graph[ids(organize["instrument"])[0]]) == {"SoftwareApplication"}
    assert set(ids(organize["object"])) == {control["@id"] for control in controls}
    assert ids(organize["result"]) == ["#run"]


def test_a_crate_still_verifies_and_can_be_bagged_and_read(crate, tmp_path):
    from rocrate.rocrate import ROCrate

    assert verify(crate, strict=True).code == IDENTICAL
    assert ROCrate(crate).mainEntity.id == "workflow/Snakefile"
    assert skyproof("bag", crate, "--to", tmp_path / "bag").returncode == 0
    bagit.Bag(str(tmp_path / "bag")).validate()
    assert (tmp_path / "bag/data/ro-crate-metadata.json").is_file()


def test_a_wrong_author_is_an_error(results):
    result = skyproof("crate", results, "--author", "<nobody>")
    assert result.returncode == 2
    assert "expected 'Name <https://orcid.org/...>'" in one_line(result)


def test_a_signature_file_is_for_everyone_to_read(results, keys):
    assert skyproof("root", results, "--sign", keys[0]).returncode == 0
    assert stat.S_IMODE((results / SIGNATURE).stat().st_mode) & 0o444
