"""The crate of a run against the shapes of its profile, by the RO-Crate community's validator."""

from __future__ import annotations

import email.message
import io
import json
import shutil
import urllib.request
import urllib.response
from importlib import resources
from pathlib import Path

import pytest
import requests
import requests_cache
from rocrate_validator import models, services

from tests.conftest import skyproof

RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"
BIOSCHEMAS = "https://bioschemas.org/"


def contexts() -> dict[str, object]:
    """Return the two JSON-LD contexts of the profile, which the validator would fetch.

    The library `rocrate` ships RO-Crate's newest one; where version 1.1 wrote a term in another
    way, that is put in. Of the terms of workflow runs, those that a crate may use are here.
    """
    newest = json.loads(resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_text())
    newest["@context"] |= {
        "ComputationalWorkflow": f"{BIOSCHEMAS}ComputationalWorkflow",
        "FormalParameter": f"{BIOSCHEMAS}FormalParameter",
        "input": f"{BIOSCHEMAS}ComputationalWorkflow#input",
        "output": f"{BIOSCHEMAS}ComputationalWorkflow#output",
    }
    names = ("ParameterConnection", "connection", "sourceParameter", "targetParameter")
    names += ("ContainerImage", "containerImage", "environment", "configFile", "sha256")
    return {
        "https://w3id.org/ro/crate/1.1/context": newest,
        "https://w3id.org/ro/terms/workflow-run/context": {
            "@context": {name: RUN_TERMS + name for name in names}
        },
    }


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer requests for the contexts from here; any other fails (x05: no network in tests)."""
    content = {url: json.dumps(context).encode() for url, context in contexts().items()}

    def opened(self: object, url: object, *_: object, **__: object) -> urllib.response.addinfourl:
        address = url if isinstance(url, str) else url.full_url  # type: ignore[attr-defined]
        headers = email.message.Message()
        headers["Content-Type"] = "application/ld+json"
        return urllib.response.addinfourl(io.BytesIO(content[address]), headers, address, 200)

    def sent(self: object, request: requests.PreparedRequest, **_: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url = 200, request.url
        response._content = content[request.url]
        response.headers["Content-Type"] = "application/ld+json"
        return response

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", opened)
    monkeypatch.setattr(requests.Session, "send", sent)
    monkeypatch.setattr(requests_cache.CachedSession, "send", sent)


def problems(folder: Path) -> list[str]:
    """Return the requirements (MUST) of the profile that the crate does not satisfy."""
    settings = services.ValidationSettings(
        rocrate_uri=str(folder),
        profile_identifier="provenance-run-crate-0.5",
        requirement_severity=models.Severity.REQUIRED,
    )
    return [f"{i.check.identifier}: {i.message}" for i in services.validate(settings).get_issues()]


def test_the_crate_of_a_run_fits_its_profile(made: Path, offline: None, tmp_path: Path):
    run = shutil.copytree(made, tmp_path / "results", symlinks=True)
    result = skyproof("crate", run, toy=True)
    assert result.returncode == 0, result.stderr
    assert problems(run) == []


def test_the_validator_finds_what_is_missing(made: Path, offline: None, tmp_path: Path):
    """Steps without their workflow: otherwise the test above would not test anything."""
    run = shutil.copytree(made, tmp_path / "results", symlinks=True)
    assert skyproof("crate", run, toy=True).returncode == 0
    path = run / "ro-crate-metadata.json"
    crate = json.loads(path.read_text())
    for entity in crate["@graph"]:
        entity.pop("step", None)
    path.write_text(json.dumps(crate))
    assert any("HowToStep must be referred to" in problem for problem in problems(run))
