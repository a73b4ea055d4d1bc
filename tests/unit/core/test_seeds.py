"""Random streams: the same for equal names, independent for different ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skyproof.core.seeds import key_words, stream


def test_golden_numbers():
    """A change of these numbers changes every product: numpy or the keys have changed."""
    drawn = stream(1, "obiwan.simulate", "1211p060", "sky").integers(0, 1000, 5)
    assert drawn.tolist() == [925, 572, 246, 575, 254]


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
)
def test_streams_are_equal_only_for_equal_names(one, two):
    drawn = [stream(7, *names).integers(0, 2**63, 2).tolist() for names in (one, two)]
    assert (drawn[0] == drawn[1]) == (one == two)


def test_seed_matters():
    assert stream(1, "a").integers(2**63) != stream(2, "a").integers(2**63)


def test_names_and_numbers_are_the_same_key():
    assert key_words(12) == key_words("12")


def test_streams_are_not_correlated():
    draws = np.array([stream(3, "item", n).normal(size=400) for n in range(50)])
    correlation = np.corrcoef(draws)[np.triu_indices(50, 1)]
    assert abs(correlation.mean()) < 4 * 0.05 / np.sqrt(correlation.size)
    assert correlation.std() < 0.06  # 1/sqrt(400) = 0.05 expected, 0.0476 measured
