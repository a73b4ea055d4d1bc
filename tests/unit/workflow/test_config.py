"""One model describes the configuration; the files generated from it are up to date."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from skyproof.core.errors import InputError, SkyproofError, UsageError
from skyproof.core.options import from_words, home_of, options_model, stages, systems, to_words
from skyproof.workflow import config
from skyproof.workflow.plan.systems import plan_of
from tests.conftest import one_line, skyproof

GENERATED = {
    "config.yaml": config.as_yaml,
    "docs/options.md": config.as_markdown,
    "docs/config.schema.json": config.as_json_schema,
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_up_to_date(root, name):
    expected = GENERATED[name]()
    assert (root / name).read_text() == expected, "run `python -m skyproof config --write`"


def test_config_yaml_is_the_default(root):
    assert config.load_file(root / "config.yaml") == config.load({})


BAD = [
    ({"obiwn": {}}, "obiwn: unknown name; did you mean obiwan?"),
    (
        {"obiwan": {"train": {"n_epoch": 1}}},
        "obiwan.train.n_epoch: unknown name; did you mean n_epochs?",
    ),
    (
        {"obiwan": {"train": {"n_epochs": "four"}}},
        "obiwan.train.n_epochs: input should be a valid integer",
    ),
    ({"obiwan": {"train": {"n_epochs": 0}}}, "greater than or equal to 1, got 0"),
    ({"obiwan": {"train": {"learning_rate": float("nan")}}}, "finite"),
    ({"obiwan": {"train": None}}, "obiwan.train"),
    ({"obiwan": {"bands": "gx"}}, "obiwan.bands"),
    ({"obiwan": {"bands": "zg"}}, "obiwan.bands"),
    ({"obiwan": {"source": "telescope"}}, "'simulate', 'ingest' or 'release'"),
    (
        {"obiwan": {"train": {"seed": 1}}},
        "obiwan.train.seed: cannot be set here; it is set once, as seed",
    ),
    ({"obiwan": {"split": {"bands": "g"}}}, "it is set once, as obiwan.bands"),
    ({"obiwan": {"cutouts": {"block": 1}}}, "the rule sets it for each job"),
    (
        {"sysnet": {"regions": {"a b": {}}}},
        "'a b' is not a valid name of a region; expected letters, digits, '_' and '-'",
    ),
    ({"sysnet": {"regions": {"../x": {}}}}, "'../x' is not a valid name of a region"),
    ({"sysnet": {"regions": {"": {}}}}, "'' is not a valid name of a region"),
    ({"sysnet": {"regions": {"summarise": {}}}}, "and none of summarise"),
    (
        {"sysnet": {"regions": {"North": {}, "north": {}}}},
        "names of regions must differ in more than upper and lower case",
    ),
    (
        {"sysnet": {"regions": {"ngc": {"source": "sky"}}}},
        "sysnet.regions.ngc.source: input should be 'mock', 'maps' or 'table', got 'sky'",
    ),
    (
        {"sysnet": {"regions": {"ngc": {"source": "table"}}}},
        "sysnet.regions.ngc: table: is required with source: table",
    ),
    (
        {"sysnet": {"regions": {"ngc": {"source": "maps", "counts": "c.fits"}}}},
        "sysnet.regions.ngc: templates: is required with source: maps",
    ),
    ({"sysnet": {"regions": {"ngc": {"tables": []}}}}, "did you mean table?"),
    ({"sysnet": {"mock": {"contamination": "none"}}}, "the rule sets it for each job"),
    ({"systems": ["obiwann"]}, "unknown system obiwann; did you mean obiwan?"),
    ({"numerics": "fast"}, "'portable' or 'native'"),
]


@pytest.mark.parametrize(("values", "expected"), BAD)
def test_a_bad_configuration_ends_in_one_line(values, expected):
    with pytest.raises(UsageError) as caught:
        config.load(values, "mine.yaml")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"obiwan": {"source": "ingest"}}, "obiwan.exposures.ccds"),
        ({"obiwan": {"source": "release"}}, "bricks.txt: does not exist"),
        (
            {"sysnet": {"regions": {"ngc": {"source": "table", "table": ["no.fits"]}}}},
            "sysnet.regions.ngc.table: no.fits does not exist",
        ),
    ],
)
def test_an_input_that_is_missing_is_named_before_anything_runs(
    values, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (system,) = values
    with pytest.raises(SkyproofError) as caught:
        plan_of(system, getattr(config.load(values), system))
    assert expected in str(caught.value)


def test_x02_through_the_command_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("obiwan: {trian: {}}\n")
    result = skyproof("config", tmp_path / "mine.yaml")
    assert result.returncode == 2
    assert "did you mean train?" in one_line(result)


@pytest.mark.parametrize(
    ("content", "kind"),
    [("a: [", UsageError), ("- 1\n", UsageError), (None, InputError), ("\x00", UsageError)],
)
def test_files_that_are_not_a_configuration(tmp_path, content, kind):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(kind, match=r"mine\.yaml"):
        config.load_file(path)


def all_stages() -> list[str]:
    return [f"{system}.{name}" for system in systems() for name in stages(system)]


@pytest.mark.parametrize("stage", all_stages())
def test_options_survive_the_command_line(stage):
    """The stage gets the values that the rule passes, for all types."""
    options = config.stage_options(config.load({"seed": 5, "numerics": "native"}), stage)
    words = to_words(options)
    pairs = {
        name[2:].replace("-", "_"): value
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
    assert from_words(options_model(stage), pairs) == options
    assert pairs["numerics"] == "native"
    assert "block" not in pairs


@pytest.mark.parametrize("stage", all_stages())
def test_every_option_is_explained(stage):
    for name, field in options_model(stage).model_fields.items():
        assert field.description, name
        assert home_of(field) in ("own", "inherited", "job")


def test_inherited_values_reach_the_stages():
    loaded = config.load({"seed": 9, "obiwan": {"bands": "gz"}})
    assert config.stage_options(loaded, "obiwan.train").seed == 9
    assert config.stage_options(loaded, "obiwan.train").bands == "gz"


def test_yaml_comments_name_units_and_bounds(root):
    text = (root / "config.yaml").read_text()
    line = next(line for line in text.splitlines() if "brick_pixels:" in line)
    assert "[pixel]" in line
    assert ">= 128" in line
    assert yaml.safe_load(text)["obiwan"]["simulate"]["brick_pixels"] >= 128


def test_every_documented_configuration_is_valid(root: Path):
    found = sorted(root.glob("docs/**/*.yaml")) + sorted(root.glob("tests/**/config*.yaml"))
    for path in found:
        config.load_file(path)


# The schema of the configuration, for editors.

DOCUMENTED = ["config.yaml", "docs/configs/*.yaml", "tests/**/config*.yaml"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(config.as_json_schema())


def options_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted path, schema) of the options below a section."""
    for name, inside in schema["properties"].items():
        if "properties" in inside:
            yield from options_of(inside, f"{path}{name}.")
        else:
            yield f"{path}{name}", inside


def test_config_yaml_names_its_schema_in_the_first_line(root):
    first = (root / "config.yaml").read_text().splitlines()[0]
    key, _, path = first.removeprefix("# yaml-language-server: ").partition("=")
    assert key == "$schema"
    jsonschema.Draft202012Validator.check_schema(json.loads((root / path).read_text()))


def test_documented_configurations_satisfy_the_schema(root, schema):
    found = [path for pattern in DOCUMENTED for path in sorted(root.glob(pattern))]
    assert len(found) > 5
    for path in found:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize(
    ("values", "keyword"),
    [
        ({"obiwn": {}}, "additionalProperties"),
        ({"systems": ["obiwn"]}, "enum"),
        ({"obiwan": {"train": {"n_epoch": 1}}}, "additionalProperties"),
        ({"obiwan": {"train": {"n_epochs": 0}}}, "minimum"),
        ({"obiwan": {"split": {"rows_train": 3}}}, "multipleOf"),
        ({"obiwan": {"train": {"seed": 1}}}, "additionalProperties"),  # inherited
        ({"obiwan": {"cutouts": {"block": 1}}}, "additionalProperties"),  # set by the rule
        ({"obiwan": {"bands": "zg"}}, "pattern"),
        ({"sysnet": {"loss": "l1"}}, "enum"),
        ({"sysnet": {"structure": [4, 20, 3]}}, "maxItems"),
        ({"sysnet": {"regions": {"ngc": {"tables": []}}}}, "additionalProperties"),
        ({"sysnet": {"regions": {"ngc": {"min_abs_gal_lat": 90}}}}, "exclusiveMaximum"),
        ({"sysnet": {"regions": {"ngc": {"mask": 3}}}}, "anyOf"),
    ],
)
def test_the_schema_finds_what_is_wrong(schema, values, keyword):
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate(values, schema)
    assert caught.value.validator == keyword


def test_the_schema_has_the_options_of_config_yaml_with_defaults_and_meaning(root, schema):
    def keys(section: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            if isinstance(value, dict) and name != "regions":
                yield from keys(value, f"{path}{name}.")
            else:
                yield f"{path}{name}", value

    described = dict(options_of(schema))
    defaults = dict(keys(yaml.safe_load((root / "config.yaml").read_text())))
    assert list(described) == list(defaults)
    for path, option in described.items():
        assert option["default"] == defaults[path], path
        assert option["description"], path
    assert described["obiwan.simulate.depth"]["description"].endswith(" [mag]")
    assert "title" not in json.dumps(described)
