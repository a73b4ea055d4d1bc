"""Format of numbers in pages and metrics."""

from __future__ import annotations

import json

import numpy as np

from skyproof.assess.page import (
    caution_lines,
    headline,
    nine_digits,
    rounded,
    six_decimals,
    with_interval,
)


def test_numbers_become_json_and_what_is_not_finite_becomes_null():
    metrics = {
        "a": np.float64(1 / 3),
        "b": [np.int64(2), float("nan"), (np.float32(0.5), float("inf"))],
        "c": {"d": True, "e": None, "f": "text"},
    }
    found = rounded(metrics, six_decimals)
    assert found == {
        "a": 0.333333,
        "b": [2, None, [0.5, None]],
        "c": {"d": True, "e": None, "f": "text"},
    }
    assert json.loads(json.dumps(found)) == found


def test_small_numbers_keep_their_digits_where_asked():
    assert rounded([1.23456789012e-12], six_decimals) == [0]
    assert rounded([1.23456789012e-12], nine_digits) == [1.23456789e-12]


def test_parts_of_a_page():
    assert headline("told apart: AUC 0.9") == "**Told apart: AUC 0.9.**"
    assert with_interval({"value": 0.512, "low": 0.4, "high": 0.61}) == "0.51 [0.40, 0.61]"
    assert caution_lines([]) == []
    assert caution_lines(["few rows"]) == ["", "Caution:", "", "- few rows"]
