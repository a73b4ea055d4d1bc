"""Describe a run for publication: a Workflow Run RO-Crate of the profile "Provenance Run Crate".

The profile is https://w3id.org/ro/wfrun/provenance/0.5, on RO-Crate 1.1. The metadata name the
workflow, its tools (stages), every job with inputs, parameters, command, times and results, and the
digests of code, locks and files. The folder of results becomes the crate: `ro-crate-metadata.json`
and a copy of the workflow (`workflow/`) are added beside the products, outside the manifest.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from skyproof.core.errors import UsageError
from skyproof.proof import manifest
from skyproof.proof.collect import checkout
from skyproof.proof.manifest import CRATE, CRATE_FOLDER, Manifest

_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_TERMS = "https://w3id.org/ro/terms/workflow-run/context"
_MORE_TERMS = {"buildInstructions": "https://codemeta.github.io/terms/buildInstructions"}
_SOFTWARE = "https://spdx.org/licenses/BSD-3-Clause"
_DONE = {"@id": "http://schema.org/CompletedActionStatus"}
_COPIED = ("Snakefile", "config.yaml", "rules/*.smk", "envs/*.lock.txt")


def make_crate(folder: Path, license: str, author: str | None) -> Path:
    """Write the crate's metadata into a folder with a manifest; return the path of the metadata.

    `license` is the URL of the licence of the results, `author` 'Name <https://orcid.org/...>'.
    Raises CannotVerify without a valid manifest and provenance, UsageError for a wrong author.
    """
    run = manifest.read(folder)
    provenance = manifest.read_provenance(folder)
    copies = _copy_workflow(folder)
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(_TERMS)
    crate.metadata.extra_terms.update(_MORE_TERMS)
    crate.name = "Results of skyproof"
    crate.description = (
        f"{len(run.files)} products of {len(provenance['jobs'])} jobs; "
        f"root digest sha256:{run.root}"
    )
    crate.datePublished = manifest.date_of_run(folder)
    builder = _Builder(crate, run, provenance, author)
    crate.license = builder.entity(license, "CreativeWork", name=license)
    builder.profiles()
    builder.workflow(copies)
    builder.actions()
    crate.metadata.write(folder)
    return folder / CRATE


def _copy_workflow(folder: Path) -> list[str]:
    """Copy the files that define the workflow into the crate; return their paths there."""
    copies = []
    for pattern in _COPIED:
        for source in sorted(checkout().glob(pattern)):
            path = f"{CRATE_FOLDER}/{source.relative_to(checkout()).as_posix()}"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / path)
            copies.append(path)
    return copies


class _Builder:
    """Adds the entities of one run to a crate."""

    def __init__(
        self, crate: Any, run: Manifest, provenance: dict[str, Any], author: str | None
    ) -> None:
        self.crate, self.run, self.provenance = crate, run, provenance
        self.version = provenance.get("git") or "unknown"
        self.jobs = provenance["jobs"]
        self.stages = list(dict.fromkeys(step["stage"] for step in run.steps))
        self.author = self._author(author)
        self._files: dict[str, Any] = {}
        written = {path: digest for job in self.jobs for path, digest in job["outputs"].items()}
        self._indices = {path: d for path, d in written.items() if path not in run.files}

    def entity(self, identifier: str, kind: str | list[str], **properties: Any) -> Any:
        """Add a contextual entity with those of its properties that are neither None nor empty."""
        kept = {key: value for key, value in properties.items() if value not in (None, [], "")}
        found = ContextEntity(self.crate, identifier, properties={"@type": kind})
        for key, value in kept.items():
            found[key] = value
        return self.crate.add(found)

    def _author(self, text: str | None) -> Any:
        if text is None:
            return None
        found = re.fullmatch(r"([^<>]+?)\s*(?:<(https?://[^<>\s]+)>)?", text)
        if found is None:
            raise UsageError(f"author {text!r}: expected 'Name <https://orcid.org/...>'")
        name, url = found.groups()
        return self.entity(url or f"#{quote(name)}", "Person", name=name)

    def profiles(self) -> None:
        """Add the profiles to which the crate conforms, and its author."""
        root = self.crate.root_dataset
        root["conformsTo"] = [
            self.entity(url, "CreativeWork", name=name, version=url.rsplit("/", 1)[1])
            for url, name in _PROFILES.items()
        ]
        if self.author is not None:
            root["author"] = self.author

    def workflow(self, copies: list[str]) -> None:
        """Add the workflow, its steps and tools, and the locks of its environments."""
        engine = metadata.version("snakemake")
        self.main = self.crate.add_workflow(
            dest_path=f"{CRATE_FOLDER}/Snakefile",
            main=True,
            lang="snakemake",
            lang_version=engine,
            properties={
                "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
                "name": "skyproof",
                "version": self.version,
                "license": _SOFTWARE,
            },
        )
        self.engine = self.entity(
            "#snakemake",
            "SoftwareApplication",
            name="Snakemake",
            url="https://snakemake.github.io",
            softwareVersion=engine,
        )
        self.tools = {stage: self._tool(stage) for stage in self.stages}
        self.steps = {
            stage: self.entity(
                f"#step/{stage}",
                "HowToStep",
                name=stage.replace(".", "_"),
                position=number,
                workExample=self.tools[stage],
            )
            for number, stage in enumerate(self.stages)
        }
        self.main["hasPart"] = list(self.tools.values())
        self.main["step"] = list(self.steps.values())
        files = {path: self.file(path) for path in copies if not path.endswith("/Snakefile")}
        self.main["buildInstructions"] = [
            file for path, file in files.items() if path.endswith(".lock.txt")
        ]

    def _tool(self, stage: str) -> Any:
        """Add a stage with one formal parameter per option; its version is its code digest."""
        facts = self.run.content["stages"][stage]
        parameters = [
            self.entity(
                f"#parameter/{stage}/{name}",
                "FormalParameter",
                additionalType=_data_type(value),
                name=name,
            )
            for name, value in sorted(facts["options"].items())
        ]
        return self.entity(
            f"#tool/{stage}",
            "SoftwareApplication",
            name=f"skyproof {stage}",
            softwareVersion=facts["code"],
            input=parameters,
        )

    def actions(self) -> None:
        """Add an action for every job, and one for the whole run."""
        values = {stage: self._values(stage) for stage in self.stages}
        actions, controls = [], []
        for number, job in enumerate(self.jobs):
            stage = job["stage"]
            external = [self._external(given) for given in job["external"]]
            of_job = {**job["options"], **job["grain"]}
            own = [self._value(stage, k, v, number) for k, v in sorted(of_job.items())]
            action = self._action(
                f"#job/{number}",
                self.tools[stage],
                job,
                name=f"{stage}: {min(job['outputs'])}",
                description=job["command"],
                object=[self.file(path) for path in job["inputs"]] + external + values[stage] + own,
                result=[self.file(path) for path in job["outputs"]],
            )
            actions.append(action)
            controls.append(
                self.entity(
                    f"#control/{number}",
                    "ControlAction",
                    name=f"orchestrate {stage}",
                    instrument=self.steps[stage],
                    object=action,
                )
            )
        self._whole_run(actions, controls, values)

    def _whole_run(
        self, actions: list[Any], controls: list[Any], values: dict[str, list[Any]]
    ) -> None:
        read = {path for job in self.jobs for path in job["inputs"]}
        final = [p for job in self.jobs for p in job["outputs"] if p not in read]
        outside = {e.id: e for job in self.jobs for e in map(self._external, job["external"])}
        times = {
            "started": min(job["started"] for job in self.jobs),
            "ended": max(job["ended"] for job in self.jobs),
        }
        described = [self.file(name) for name in (manifest.MANIFEST, manifest.SUMS)]
        run = self._action(
            "#run",
            self.main,
            times,
            name="Run of skyproof",
            description=self.provenance.get("workflow"),
            object=[*outside.values(), *(v for found in values.values() for v in found)],
            result=[self.file(path) for path in final] + described,
        )
        self.entity(
            "#engine-run",
            "OrganizeAction",
            name="Run of Snakemake",
            instrument=self.engine,
            object=controls,
            result=run,
            agent=self.author,
        )
        self.crate.root_dataset["mentions"] = [run, *actions]

    def _action(self, identifier: str, tool: Any, ran: dict[str, Any], **properties: Any) -> Any:
        return self.entity(
            identifier,
            "CreateAction",
            instrument=tool,
            startTime=ran["started"],
            endTime=ran["ended"],
            actionStatus=_DONE,
            agent=self.author,
            **properties,
        )

    def file(self, path: str) -> Any:
        """Return the entity of a file of the crate, with size and digest where they are known."""
        if path not in self._files:
            entry = self.run.files.get(path, {})
            known = {"contentSize": str(entry["size"]), "sha256": entry["sha256"]} if entry else {}
            if path in self._indices:
                known = {"sha256": self._indices[path]}
            properties = {"name": path, **known}
            self._files[path] = self.crate.add_file(dest_path=quote(path), properties=properties)
        return self._files[path]

    def _external(self, given: dict[str, Any]) -> Any:
        """Return the entity of an external input: its name and digest; it is not in the crate."""
        digest = given.get("sha256")
        identifier = f"urn:sha256:{digest}" if digest else f"#input/{quote(given['path'])}"
        known = self.crate.dereference(identifier)
        return known or self.entity(
            identifier,
            "CreativeWork",
            name=given["path"],
            description=f"input {given['name']}, not part of the crate",
            sha256=digest,
        )

    def _values(self, stage: str) -> list[Any]:
        options = self.run.content["stages"][stage]["options"]
        return [self._value(stage, name, value) for name, value in sorted(options.items())]

    def _value(self, stage: str, name: str, value: Any, job: int | None = None) -> Any:
        where = stage if job is None else f"{stage}/{job}"
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return self.entity(
            f"#value/{where}/{name}",
            "PropertyValue",
            name=f"{stage} {name}",
            value=text or "''",
            exampleOfWork={"@id": f"#parameter/{stage}/{name}"} if job is None else None,
        )


def _data_type(value: Any) -> str:
    """Return schema.org's name for the type of an option."""
    names = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}
    return names.get(type(value), "PropertyValue")
