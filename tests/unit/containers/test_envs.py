"""envs/*.yaml: form, channels, specifications, and that the locked versions lie within the bounds.

Whether conda-forge has these packages is not tested, because it cannot be reached here.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import rattler
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.conftest import ROOT

FILES = sorted((ROOT / "envs").glob("*.yaml"))
# conda-forge's names where they are not those of the wheels.
WHEELS = {"pytorch": "torch"}


def faults(content: dict, locked: dict[str, Version], bounds: dict[str, str]) -> list[str]:
    """Return the faults of an environment file, given its lock and the bounds of its extra."""
    found = []
    if content.keys() != {"channels", "dependencies"}:
        found.append(f"keys are {sorted(content)}")
    if content.get("channels") != ["conda-forge", "nodefaults"]:
        found.append(f"channels are {content.get('channels')}")
    names = set()
    for line in content.get("dependencies", []):
        if not isinstance(line, str):
            found.append(f"{line} is not a line (a pin file would silence a pip section)")
            continue
        try:
            spec = rattler.MatchSpec(line, strict=True)
        except Exception as error:  # of several classes, private ones among them
            found.append(f"{line}: {error}")
            continue
        name = str(spec.name.source if hasattr(spec.name, "source") else spec.name.normalized)
        names.add(wheel := WHEELS.get(name, name))
        if spec.version is None or "<" not in str(spec.version) or ">" not in str(spec.version):
            found.append(f"{line} has no bound on both sides")
        elif name != "python":
            if wheel not in locked:
                found.append(f"{line} is not in the lock")
            elif not SpecifierSet(line.split()[1]).contains(locked[wheel]):
                found.append(f"{line} shuts out the locked {locked[wheel]}")
            if wheel in bounds and SpecifierSet(line.split()[1]) != SpecifierSet(bounds[wheel]):
                found.append(f"{line} is not pyproject's {bounds[wheel]}")
    found += [f"{name} of pyproject is not there" for name in sorted(bounds.keys() - names)]
    return found


def locked_versions(name: str) -> dict[str, Version]:
    text = (ROOT / f"envs/{name}.lock.txt").read_text()
    if name == "train":
        text += (ROOT / "envs/torch.lock.txt").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, flags=re.MULTILINE)
    return {package: Version(version) for package, version in pins}


def bounds_of(name: str) -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][name]
    return dict(re.fullmatch(r"([a-z0-9-]+)(.*)", line).groups() for line in lines)


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def test_there_is_one_a_family():
    assert [path.stem for path in FILES] == ["analyse", "generate", "train"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_valid_and_allows_the_tested_versions(path):
    assert faults(load(path), locked_versions(path.stem), bounds_of(path.stem)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_pin_file_that_was_never_solved(path):
    """Snakemake would install it instead of the environment file."""
    assert list(path.parent.glob(f"{path.stem}.*.pin.txt")) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda c: c.update(channels=["defaults", "conda-forge"]), "channels are"),
        (lambda c: c.update(name="x"), "keys are"),
        (lambda c: c["dependencies"].append({"pip": ["x"]}), "pin file"),
        (lambda c: c["dependencies"].append("numpy >=>2"), "numpy"),
        (lambda c: c["dependencies"].append("scipy"), "no bound"),
        (lambda c: c["dependencies"].append("tqdm >=1,<2"), "shuts out"),
        (lambda c: c["dependencies"].append("flask >=1,<2"), "not in the lock"),
        (lambda c: c["dependencies"].pop(), "of pyproject is not there"),
    ],
)
def test_faults_are_found(spoil, fault):
    content = load(ROOT / "envs/analyse.yaml")
    spoil(content)
    found = faults(content, locked_versions("analyse"), bounds_of("analyse"))
    assert any(fault in line for line in found), found
