"""Every test that docs/reproducibility.md names exists."""

from __future__ import annotations

import re

from tests.conftest import ROOT

NAMED = re.findall(r"(?:\w+/)*test_\w+(?:\.py)?", (ROOT / "docs/reproducibility.md").read_text())


def test_every_named_test_exists():
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    text = "\n".join(sources.values())
    for name in NAMED:
        if name.endswith(".py"):
            assert any(path.as_posix().endswith(f"/{name}") for path in sources), name
        else:  # a name that ends with _ stands for several
            end = "" if name.endswith("_") else r"\("
            assert re.search(rf"^def {name}{end}", text, flags=re.MULTILINE), name


def test_the_table_names_some():
    assert len(set(NAMED)) > 20
