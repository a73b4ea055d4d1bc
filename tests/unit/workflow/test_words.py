"""Terms that were replaced by those of the field stay out of code and documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each term, as a regular expression of a word or a part of a name, and its replacement.
REPLACED = {
    r"recipes?": "cache key",
    r"grain": "affects_results=False",
    r"tall(?:y|ies)": "difference",
    r"refus(?:als?|es?|ed|ing)": "raise, error; of a repeated job: no-retry note",
    r"fore(?:sees?|seen|saw)": "estimate",
    r"mend(?:s|ed|ing)?": "fix, remedy",
    r"part of the bits": "changes the result",
    r"droppings?": "leftovers",
    r"naught": "zero, none",
    r"at hand": "available",
    r"in the place of": "instead of",
    r"so many": "n, this number of",
    r"hangs? on": "depends on",
    r"of (?:its|their|one's) own": "separate, new",
    r"bears?": "has",
    r"sendings?": "submit once",
    r"(?:make|write|stamp)_trees?": "item set, folder",
    r"records? of (?:an? |the |some |one )?(?:blocks?|items|stamps|cutouts)": "block index",
    r"split=record": "split=index",
}
# Keys and names in files of earlier runs, and the field of a form with such a name.
SERIALISED = r'"recipe"|"grain"|\bgrain: dict|`grain`|\.refused\.json'
SOURCES = ["scripts/skyproof/**/*.py", "rules/*.smk", "rules/report/*.rst", "Snakefile"]
SOURCES += ["tests/**/*.py", "benchmarks/**/*.py", "profiles/**/*.yaml"]
DOCUMENTS = [
    "*.md",
    "tests/**/*.md",
    "docs/**/*.md",
    "docs/**/*.yaml",
    "docs/*.json",
    "config.yaml",
]


def found_in(text: str) -> list[str]:
    """Return the replaced terms in a text in lower case, also within names."""
    any_term = "|".join(REPLACED)
    plain = " ".join(re.sub(SERIALISED, "", text.lower()).split())
    return re.findall(rf"(?<![a-z])(?:{any_term})(?![a-z])", plain)


def files() -> list[Path]:
    """Return the files to search, without this one, which lists the terms."""
    found = {path for pattern in SOURCES + DOCUMENTS for path in ROOT.glob(pattern)}
    return sorted(found - {Path(__file__)})


def test_replaced_terms_are_not_used():
    wrong = {}
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if terms := sorted(set(found_in(path.read_text()))):
            wrong[name] = terms
    assert wrong == {}, f"use instead: {REPLACED}"


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("the recipe of a call", ["recipe"]),
        ("def is_grain(field):", ["grain"]),
        ("_RECIPE_DIGITS = 16", ["recipe"]),
        ("in the\n    place of it", ["in the place of"]),
        ("foreseen", ["foreseen"]),
        ("def test_a_file_is_refused", ["refused"]),
        ("the record of a block", ["record of a block"]),
        ("def make_tree(root):", ["make_tree"]),
        ("a fine-grained, recommended, bearing name", []),
    ],
)
def test_terms_are_found_in_prose_and_names(text, terms):
    assert found_in(text) == terms
