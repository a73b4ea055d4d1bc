"""Declaration of the inputs, outputs and options of a stage."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

import skyproof
from skyproof.core.errors import UsageError, did_you_mean


class File(NamedTuple):
    """A named input or output: its meaning, and whether it may be several files or absent."""

    meaning: str
    many: bool = False
    optional: bool = False


def option(default: Any, meaning: str, *, unit: str = "", **bounds: Any) -> Any:
    """Declare an option of one stage; `bounds` are those of pydantic (ge, gt, le, lt, ...)."""
    return _declare(default, meaning, "own", unit, bounds)


def inherited(default: Any, meaning: str, *, unit: str = "", **bounds: Any) -> Any:
    """Declare an option that a configuration sets once for all stages that have it."""
    return _declare(default, meaning, "inherited", unit, bounds)


def per_job(default: Any, meaning: str, *, unit: str = "", **bounds: Any) -> Any:
    """Declare an option that the rule sets for each job. A configuration cannot set it."""
    return _declare(default, meaning, "job", unit, bounds)


def _declare(default: Any, meaning: str, home: str, unit: str, bounds: dict[str, Any]) -> Any:
    """Return the field; `affects_results=False` marks options that only divide the work."""
    affects = bool(bounds.pop("affects_results", True))
    extra: dict[str, Any] = {"unit": unit, "home": home, "affects_results": affects}
    return pydantic.Field(
        default, description=meaning, json_schema_extra=extra, validate_default=True, **bounds
    )


def unit_of(field: FieldInfo) -> str:
    """Return the unit of an option, or an empty string."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def home_of(field: FieldInfo) -> str:
    """Return where an option is set: 'own' section, 'inherited' from above, or by the 'job'."""
    extra = field.json_schema_extra
    return str(extra.get("home", "own")) if isinstance(extra, dict) else "own"


def affects_results(field: FieldInfo) -> bool:
    """Return False for an option that only divides the work into jobs.

    Such an option is in no cache key and in no manifest.
    """
    extra = field.json_schema_extra
    return not isinstance(extra, dict) or bool(extra.get("affects_results", True))


class Section(BaseModel):
    """A part of the configuration: immutable; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StageOptions(Section):
    """Options of a stage.

    The class also declares the stage's named inputs and outputs, and whether its ranks share the
    work (`parallel`).
    """

    inputs: ClassVar[dict[str, File]] = {}
    outputs: ClassVar[dict[str, File]] = {}
    parallel: ClassVar[bool] = True  # False: the stage runs on rank 0 only

    numerics: Literal["portable", "native"] = inherited(
        "portable",
        "portable: the same bytes on any x86-64 CPU with AVX2, one thread a rank; "
        "native: every instruction and thread of this machine",
    )

    def deciding(self) -> dict[str, Any]:
        """Return the options that affect the products, as plain values."""
        fields = type(self).model_fields
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if affects_results(fields[name])}


class SeededOptions(StageOptions):
    """Options of a stage that draws random numbers."""

    seed: int = inherited(20180501, "root of all random streams", ge=0, lt=2**63)


def validate(model: type[BaseModel], values: dict[str, Any], where: str) -> Any:
    """Return `model` built from `values`; raise UsageError with one line for pydantic's errors.

    `where` names the source in the message, for instance a configuration file or 'option'.
    """
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_first_problem(model, error)}") from None


def _first_problem(model: type[BaseModel], error: pydantic.ValidationError) -> str:
    problems = [_describe(model, problem) for problem in error.errors()]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more


def _describe(model: type[BaseModel], problem: Any) -> str:
    path = [part for part in problem["loc"] if isinstance(part, (str, int))]
    name = ".".join(map(str, path))
    if problem["type"] == "extra_forbidden":
        owner = _owner(model, path[:-1])
        known = set(owner.model_fields) if owner else set()
        return f"{name}: unknown name{did_you_mean(str(path[-1]), known)}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if problem["type"] in ("missing", "value_error"):
        return f"{name}: {message}" if name else message
    return f"{name}: {message}, got {problem['input']!r}"


def _owner(model: type[BaseModel], path: list[Any]) -> type[BaseModel] | None:
    parts = iter(path)
    for part in parts:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        inner = sections_by_name(annotation)
        if inner is not None:
            model = inner
            next(parts, None)  # the name that the user gave to the section
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        else:
            return None
    return model


def sections_by_name(annotation: Any) -> type[BaseModel] | None:
    """Return the model of the values of a `dict[str, Section]`, whose keys the user chooses."""
    arguments = get_args(annotation) if get_origin(annotation) is dict else ()
    last = arguments[-1] if arguments else None
    return last if isinstance(last, type) and issubclass(last, BaseModel) else None


def to_words(options: StageOptions) -> list[str]:
    """Return the options as words of a command line, in order, without those set for each job."""
    words = []
    for name, value in options.model_dump(mode="json").items():
        if value is None or home_of(type(options).model_fields[name]) == "job":
            continue
        words += [f"--{name.replace('_', '-')}", as_word(value)]
    return words


def as_word(value: Any) -> str:
    """Return a value as one word of a command line: text unchanged, other types as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def from_words(model: type[StageOptions], words: dict[str, str]) -> Any:
    """Return the model of words such as {'n_epochs': '4'}; lists and tables are JSON."""
    for name in words:
        if name not in model.model_fields:
            shown = {field.replace("_", "-") for field in model.model_fields}
            word = name.replace("_", "-")
            raise UsageError(f"unknown option --{word}{did_you_mean(word, shown)}")
    values = {name: _parse(word, model.model_fields[name]) for name, word in words.items()}
    return validate(model, values, "option")


def _parse(word: str, field: FieldInfo) -> Any:
    """Return a word as JSON if it is JSON and the option is not text; pydantic checks the type."""
    if field.annotation is str:
        return word
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def systems() -> list[str]:
    """Return the systems of the package: the folders that hold an options.py."""
    found = (
        path.parent.name for base in skyproof.__path__ for path in Path(base).glob("*/options.py")
    )
    return sorted(set(found) - {"core"})


def stages(system: str) -> dict[str, type[StageOptions]]:
    """Return the options class of every stage of a system, in the order of their declaration."""
    if system not in systems():
        raise UsageError(f"unknown system {system}{did_you_mean(system, systems())}")
    module = importlib.import_module(f"skyproof.{system}.options")
    return {
        name.lower(): value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, StageOptions)
        and value.__module__ == module.__name__
        and value.outputs
    }


def options_model(stage: str) -> type[StageOptions]:
    """Return the options class of 'system.stage'."""
    system, _, name = stage.partition(".")
    known = stages(system)
    if name not in known:
        raise UsageError(f"unknown stage {stage}{did_you_mean(name, known)}")
    return known[name]
