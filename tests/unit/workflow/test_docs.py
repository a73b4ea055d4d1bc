"""The documents: their form, and that what they name exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
PAGES_OF_TESTS = sorted((ROOT / "tests").rglob("*.md"))
OUTPUTS = {"obiwan": "tiny.json", "sysnet": "tiny_sysnet.json"}
# Not pages with files of earlier versions or of an example, and generated ones.
OTHER_FILES = {"CHANGELOG.md", "CONTRIBUTING.md", "options.md"}
MOST_TERMS = 12
LONGEST_LINE = 105

ALL_PAGES = PAGES + PAGES_OF_TESTS
WRITTEN_PAGES = [page for page in ALL_PAGES if page.name not in OTHER_FILES]
pages = pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
written_pages = pytest.mark.parametrize(
    "page", WRITTEN_PAGES, ids=lambda page: str(page.relative_to(ROOT))
)


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of a page, without code blocks."""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and not line.startswith("    "):
            yield number, line


@pages
def test_lines_are_wrapped(page):
    """Tables and the targets of links may be longer."""
    for number, line in prose(page):
        visible = re.sub(r"\]\([^)]*\)", "]", line)
        assert len(visible) <= LONGEST_LINE or line.startswith("|"), f"{page.name}:{number}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = [line.lstrip("# ") for _, line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(line for _, line in prose(page)))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_linked_from_the_first():
    readme = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT)})" in readme


@written_pages
def test_source_files_that_are_named_exist(page):
    text = page.read_text()
    for name in set(re.findall(r"(?<![\w/<>.])((?:\w+/)+\w+\.(?:py|smk))\b", text)):
        places = [ROOT / folder / name for folder in ("", "scripts/skyproof", "tests/unit")]
        assert any(place.exists() for place in places), f"{page.name}: {name}"


@cache
def names_of_tests() -> set[str]:
    found = (re.findall(r"^def (test_\w+)", path.read_text(), re.M) for path in files_of_tests())
    return {name for names in found for name in names}


def files_of_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("test_*.py"))


@written_pages
def test_tests_that_are_named_exist(page):
    for name in set(re.findall(r"(?<![\w/])test_\w+(?!\w*\.py)(?!\w*/)", page.read_text())):
        cut = name.endswith("_")  # "test_b12_*" stands for several
        exists = (
            any(known.startswith(name) for known in names_of_tests())
            if cut
            else (name in names_of_tests() or any(path.stem == name for path in files_of_tests()))
        )
        assert exists, f"{page.name}: {name}"


def patterns(page: Path) -> list[re.Pattern[str]]:
    """Return the paths of a page of outputs: the first cells of its table of files."""
    rows = re.findall(r"^\| (`.*?`) \|", page.read_text().partition("## Files")[2], re.M)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    return [
        re.compile(re.sub(r"<\w+>", "[^/]+", re.escape(name).replace(r"\-", "-"))) for name in names
    ]


@pytest.mark.parametrize("system", OUTPUTS)
def test_every_product_is_on_the_page_of_outputs(system):
    known = patterns(ROOT / f"docs/{system}-outputs.md")
    products = json.loads((ROOT / "tests/golden" / OUTPUTS[system]).read_text())["products"]
    # Lines with a blank are what a block index says of an item.
    files = [name.removeprefix(f"{system}/") for name in products if " " not in name]
    assert len(files) > 20
    missing = [name for name in files if not any(one.fullmatch(name) for one in known)]
    assert missing == []


@pytest.mark.parametrize("system", OUTPUTS)
def test_every_figure_of_merit_is_on_the_page_of_outputs(system):
    """Each key of the metrics, as the code writes them, and each column of the tables."""
    page = (ROOT / f"docs/{system}-outputs.md").read_text()
    source = (ROOT / f"scripts/skyproof/{system}/evaluate.py").read_text()
    body = re.search(r"metrics(?:: \w+)? = \{\n(.*?)^    \}", source, re.M | re.S)
    assert body is not None
    keys = re.findall(r'^        "(\w+)":', body[1], re.M)
    assert len(keys) > 5
    for key in keys:
        assert f"`{key}`" in page or f"`{key}." in page, key


def test_the_glossary_is_short():
    rows = re.findall(r"^\| (\w[^|]*) \| ", (ROOT / "docs/glossary.md").read_text(), re.M)
    terms = [term for row in rows if row != "term" for term in row.split(", ")]
    assert 5 < len(terms) <= MOST_TERMS
    assert len(set(terms)) == len(terms)
