"""Schemas of the JSON files that the proof reads: receipts, block indexes, manifest, provenance.

A form defines the required keys of a file, and the type and bounds of each value. Types are strict:
`true` and 1.0 are not integers. Further keys are allowed. A form only checks the values that
json.loads returns.
"""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints

from skyproof.core.formats.read import first_problem

# A path of components separated by '/', none of which is empty, '.' or '..'; without '\' and line
# breaks, which `sha256sum` would quote.
_NAME = r"(?:[^./\\\n][^/\\\n]*|\.[^./\\\n][^/\\\n]*|\.\.[^/\\\n]+)"
_PATH = rf"{_NAME}(?:/{_NAME})*"

RelativePath = Annotated[str, StringConstraints(pattern=rf"^{_PATH}$")]
RelativeFolder = Annotated[str, StringConstraints(pattern=rf"^(?:{_PATH})?$")]  # "": the root
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class WrongForm(ValueError):
    """A file does not have the required form; the message is one line."""


class Form(BaseModel):
    """Base of the forms."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def check(cls, content: Any, version: str | None = None) -> None:
        """Raise WrongForm with the first problem of `content`, a value as json.loads returns it.

        `version` is the required value of its key `format`.
        """
        if not isinstance(content, dict):
            raise WrongForm(f"expected a JSON object, got {reprlib.repr(content)}")
        if version is not None and content.get("format") != version:
            found = reprlib.repr(content.get("format"))
            raise WrongForm(f"format: expected {version!r}, got {found}")
        try:
            cls.model_validate(content)
        except pydantic.ValidationError as error:
            raise WrongForm(": ".join(first_problem(error))) from None


class ProductForm(Form):
    """A file that a job wrote; `content` is the digest of its data, for formats with metadata."""

    path: RelativePath
    size: Count
    sha256: Digest
    content: str = ""


class ItemForm(Form):
    """An item in a block index: facts for later stages, and its files."""

    info: dict[str, Any]
    files: list[ProductForm]


class BlockIndexForm(Form):
    """The items of a block of work of one stage."""

    stage: str
    items: dict[str, ItemForm]


class InputForm(Form):
    """A file or folder that a job read. Its path may be outside the results."""

    name: str
    path: str
    size: Count = 0
    sha256: Digest = ""
    folder: bool = False


class OutputForm(Form):
    """A declared output of a job. Its path is relative to the folder of the first output."""

    name: str
    path: str
    size: Count
    sha256: Digest
    content: str = ""


class CircumstancesForm(Form):
    """When and how a job ran; `grain` are the options that do not affect results."""

    started: str
    ended: str
    command: str
    grain: dict[str, Any]
    wildcards: dict[str, str] = {}


class ReceiptForm(Form):
    """Outputs, inputs, code and options of a job."""

    stage: str
    code: str
    options: dict[str, Any]
    job_options: dict[str, Any]
    numerics: str
    device: str
    libraries: dict[str, str]
    inputs: list[InputForm]
    outputs: Annotated[list[OutputForm], Field(min_length=1)]
    notes: dict[str, Any] = {}
    run: CircumstancesForm


class StageForm(Form):
    """Code, options and numerics of a stage."""

    code: str
    options: dict[str, Any]
    numerics: str
    device: str


class StepForm(Form):
    """Jobs of a stage that differ only in the block of work."""

    stage: str
    options: dict[str, Any]
    inputs: list[str]
    external: list[InputForm]
    outputs: list[str]
    notes: dict[str, Any] = {}


class ItemSetForm(Form):
    """The items of a stage in a folder, each with the digest of its entry in a block index."""

    folder: RelativeFolder
    stage: str
    items: dict[str, Digest]


class EntryForm(Form):
    """A file of the manifest.

    A path outside the folder is allowed by the form: `verify` reports it as a forgery.
    """

    path: str
    size: Count
    sha256: Digest
    content: str = ""
    step: Count
    stage: str
    class_: Literal["bytes", "tolerance"] = Field(alias="class")
    rtol: Limit = 0.0
    atol: Limit = 0.0
    mean_pixel: Limit = 0.0


class ManifestForm(Form):
    """manifest.json."""

    manifest_sha256: Digest
    stages: dict[str, StageForm]
    libraries: dict[str, str]
    locks: dict[str, str]
    steps: Annotated[list[StepForm], FailFast()]
    trees: dict[str, ItemSetForm]
    files: Annotated[list[EntryForm], FailFast()]


class JobForm(CircumstancesForm):
    """A job in the provenance."""

    stage: str
    options: dict[str, Any]
    inputs: list[str]
    external: list[InputForm]
    outputs: dict[str, Digest]


class ProvenanceForm(Form):
    """provenance.json."""

    workflow: str | None
    git: str | None
    jobs: Annotated[list[JobForm], FailFast(), Field(min_length=1)]
