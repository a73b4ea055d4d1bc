"""The configuration as one typed model, composed of the options of the systems.

`config.yaml`, `docs/options.md` and `docs/config.schema.json` are generated from it. A test fails
when one of them differs from the model.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import annotated_types
import pydantic
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from skyproof.core.errors import InputError, UsageError, did_you_mean
from skyproof.core.options import (
    Section,
    SeededOptions,
    StageOptions,
    home_of,
    option,
    options_model,
    sections_by_name,
    stages,
    systems,
    unit_of,
    validate,
)

_ANY_NAME = "<name>"  # stands for the name that a user gives to a section
_SCHEMA = "docs/config.schema.json"
# Keywords of pydantic's schemas that are not in the JSON schema: those of `option` for our own use.
_PRIVATE = {"title", *dict(SeededOptions.model_fields["seed"].json_schema_extra or {})}  # type: ignore[arg-type]

# Called with each configuration that `load` has checked.
listeners: list[Callable[[Any], None]] = []


@cache
def model() -> type[BaseModel]:
    """Return the model of the whole configuration: common keys, then one section per system."""
    shared = SeededOptions.model_fields
    fields: dict[str, Any] = {
        "systems": (
            list[str],
            option(systems(), "systems to run; the sections of the others are ignored"),
        ),
        "seed": (int, shared["seed"]),
        "numerics": (shared["numerics"].annotation, shared["numerics"]),
    }
    for name in systems():
        section = importlib.import_module(f"skyproof.{name}.options").System
        fields[name] = (section, pydantic.Field(section(), description=_summary(section)))
    return pydantic.create_model("Config", __base__=Section, **fields)


def load(values: Mapping[str, Any], where: str = "configuration") -> Any:
    """Check a configuration and fill in its defaults (UsageError with the first problem)."""
    for path, _, field in _walk(model()):
        if _hidden(path, field) and _given(values, path):
            raise UsageError(f"{where}: {path}: cannot be set here{_home(path, field)}")
    config = validate(model(), dict(values), where)
    for name in config.systems:
        if name not in systems():
            raise UsageError(
                f"{where}: systems: unknown system {name}{did_you_mean(name, systems())}"
            )
    for listener in listeners:
        listener(config)
    return config


def load_file(path: str | Path) -> Any:
    """Read and check a YAML file of configuration (InputError, UsageError)."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a table of keys and values")
    return load(values, str(path))


def stage_options(config: Any, stage: str) -> StageOptions:
    """Return the options of 'system.stage': its own section and what it inherits from above."""
    system, _, name = stage.partition(".")
    wanted = options_model(stage)
    section = getattr(config, system)
    own = getattr(section, name, None)
    values = own.model_dump() if own is not None else {}
    for key, field in wanted.model_fields.items():
        if home_of(field) == "inherited":
            source = section if key in type(section).model_fields else config
            values[key] = getattr(source, key)
    return validate(wanted, values, f"configuration, {stage}")


def _given(values: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _hidden(path: str, field: FieldInfo) -> bool:
    """Return whether a key of a stage's section is set above the stages, or by the rule."""
    return path.count(".") == 2 and home_of(field) != "own"


def _home(path: str, field: FieldInfo) -> str:
    if home_of(field) == "job":
        return "; the rule sets it for each job"
    system, _, key = path.split(".")
    section = model().model_fields[system].annotation
    inside = isinstance(section, type) and key in getattr(section, "model_fields", {})
    return f"; it is set once, as {system}.{key}" if inside else f"; it is set once, as {key}"


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _walk(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, FieldInfo]]:
    """Yield (dotted path, default, field) of a model, sections before their content."""
    for name, field in cls.model_fields.items():
        path = f"{prefix}{name}"
        yield path, field.get_default(call_default_factory=True), field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, path + ".")
        inner = sections_by_name(field.annotation)
        if inner is not None:
            named = f"{path}.{_ANY_NAME}"
            yield named, inner.model_construct(), pydantic.fields.FieldInfo()
            yield from _walk(inner, named + ".")


def _bounds(field: FieldInfo) -> str:
    words = []
    for item in field.metadata:
        for kind, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if isinstance(item, getattr(annotated_types, kind.capitalize())):
                words.append(f"{sign} {getattr(item, kind)}")
    return ", ".join(words)


def _choices(field: FieldInfo) -> str:
    schema = _adapter(field).json_schema()
    return ", ".join(map(str, schema.get("enum", [])))


def _adapter(field: FieldInfo) -> pydantic.TypeAdapter[Any]:
    annotation: Any = field.annotation
    return pydantic.TypeAdapter(annotation)


def _explained(field: FieldInfo) -> str:
    unit = f" [{unit_of(field)}]" if unit_of(field) else ""
    limits = [word for word in (_bounds(field), _choices(field)) if word]
    return f"{field.description or ''}{unit}" + (f" ({'; '.join(limits)})" if limits else "")


def _visible() -> Iterator[tuple[str, Any, FieldInfo]]:
    """Yield what a user may set; inherited options are set above the stages only."""
    for path, default, field in _walk(model()):
        if not _hidden(path, field):
            yield path, default, field


def as_yaml() -> str:
    """Return the content of config.yaml: the default configuration with one comment per key."""
    lines = [
        f"# yaml-language-server: $schema={_SCHEMA}",
        "# The default run: small synthetic data with known truth, a few minutes on a laptop.",
        "# Generated by `python -m skyproof config --write` from the options of the stages.",
    ]
    for path, default, field in _visible():
        depth = path.count(".")
        indent, name = "  " * depth, path.split(".")[-1]
        if _ANY_NAME in path:
            lines.append(_as_comment(path, default, field))
            continue
        if isinstance(default, BaseModel):
            lines += [
                "",
                f"{indent}# {field.description or _summary(type(default))}",
                f"{indent}{name}:",
            ]
            if not any(p.startswith(path + ".") for p, _, _ in _visible()):
                lines[-1] += " {}"
            continue
        lines.append(f"{indent}{name}: {_yaml_value(field, default)}  # {_explained(field)}")
    return "\n".join(lines) + "\n"


def _as_comment(path: str, default: Any, field: FieldInfo) -> str:
    """Return the keys of a named section as comments, as the default has no such section."""
    outside, _, inside = path.partition(_ANY_NAME)
    indent = "  " * outside.count(".")
    if not inside:
        return f"{indent}# {_ANY_NAME}:"
    value = _yaml_value(field, default)
    return f"{indent}#   {inside.lstrip('.')}: {value}  # {_explained(field)}"


def _yaml_value(field: FieldInfo, value: Any) -> str:
    plain = _adapter(field).dump_python(value, mode="json")
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def as_markdown() -> str:
    """Return the reference of all options: the content of docs/options.md."""
    lines = [
        "# Options",
        "",
        "Every key of the configuration, with its default. Generated by",
        "`python -m skyproof config --write` from the models in each system's `options.py`.",
    ]
    head = ["", "| key | default | unit | bounds | meaning |", "|---|---|---|---|---|"]
    lines += head
    for path, default, field in _visible():
        if isinstance(default, BaseModel):
            lines += ["", f"## {path}", "", field.description or _summary(type(default)), *head]
            continue
        limits = "; ".join(word for word in (_bounds(field), _choices(field)) if word)
        value = _yaml_value(field, default)
        lines.append(
            f"| `{path}` | `{value}` | {unit_of(field)} | {limits} | {field.description or ''} |"
        )
    return "\n".join(lines) + "\n"


def as_json_schema() -> str:
    """Return the JSON schema (draft 2020-12) of a configuration: docs/config.schema.json.

    It has the options that a configuration can set, with their descriptions, units, defaults and
    bounds. Editors use it to complete and check config.yaml. `load` checks more: options that
    depend on each other, and the names of regions.
    """
    found = model().model_json_schema()
    sections = found["$defs"]
    for name in systems():
        for key, stage in stages(name).items():
            reference = _properties(sections, found["properties"][name])[key]
            own = _properties(sections, reference)
            for option_name in [n for n, f in stage.model_fields.items() if home_of(f) != "own"]:
                del own[option_name]
    found["properties"]["systems"]["items"]["enum"] = systems()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of skyproof",
    }
    schema = head | _inlined({k: v for k, v in found.items() if k != "$defs"}, sections)
    return json.dumps(schema, indent=1) + "\n"


def _properties(sections: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = sections[reference["$ref"].rpartition("/")[2]]["properties"]
    return found


def _inlined(schema: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its references replaced and units added to the descriptions."""
    if "$ref" in schema:
        # The default of a section is that of its options.
        own = {k: v for k, v in schema.items() if k not in ("$ref", "default")}
        schema = sections[schema["$ref"].rpartition("/")[2]] | own
    made = {key: value for key, value in schema.items() if key not in _PRIVATE}
    if schema.get("unit"):
        made["description"] += f" [{schema['unit']}]"
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _inlined(made[key], sections)
    for key in ("anyOf", "prefixItems"):
        if key in made:
            made[key] = [_inlined(value, sections) for value in made[key]]
    if "properties" in made:
        inside = made["properties"].items()
        made["properties"] = {name: _inlined(value, sections) for name, value in inside}
    return made


def write_generated(root: Path) -> list[Path]:
    """Write config.yaml, docs/options.md and the schema below `root`; return their paths."""
    content = {
        root / "config.yaml": as_yaml(),
        root / "docs" / "options.md": as_markdown(),
        root / _SCHEMA: as_json_schema(),
    }
    for path, text in content.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(content)
