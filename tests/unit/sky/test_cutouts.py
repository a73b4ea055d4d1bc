"""Cutouts: pixels of stamps of any size, also beyond the image."""

from __future__ import annotations

import numpy as np
import pytest

from skyproof.sky import cutouts
from skyproof.sky.stamps import centre_pixel, on_image, stamp_inside

STAMP, HALF = 64, 32
NY, NX = 150, 170  # of the fixture `plane`


def cut(
    plane: np.ndarray, cx: list[int], cy: list[int], edge: bool = False, size: int = STAMP
) -> np.ndarray:
    planes = np.stack([-plane, plane])
    out = np.full((len(cx), size, size, 2), np.nan, "f4")
    centres = np.array(cx, "i8"), np.array(cy, "i8")
    if edge:
        cutouts.gather_edge(planes, *centres, out, fill=0)
    else:
        cutouts.gather(planes, *centres, out)
    np.testing.assert_array_equal(out[..., 0], -out[..., 1])
    return out[..., 1]


def test_x_comes_first_and_the_centre_is_pixel_32(plane):
    stamp = cut(plane, [60], [80])[0]
    assert stamp[HALF, HALF] == 80060
    assert stamp[HALF + 1, HALF] == 80061  # one step along the first axis is one in x
    assert stamp[HALF, HALF + 1] == 81060
    assert stamp[0, 0] == 48028
    assert stamp[63, 63] == 111091


def test_many_stamps_equal_a_plain_loop(plane):
    draw = np.random.default_rng(3)
    cx, cy = draw.integers(32, NX - 31, 200), draw.integers(32, NY - 31, 200)
    expected = [plane[y - 32 : y + 32, x - 32 : x + 32].T for x, y in zip(cx, cy, strict=True)]
    np.testing.assert_array_equal(cut(plane, cx, cy), expected)
    np.testing.assert_array_equal(cut(plane, cx, cy, edge=True), expected)


def test_compiled_code_needs_no_writable_folder(plane, monkeypatch):
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    cutouts._compiled.cache_clear()
    try:
        assert cut(plane, [60], [80])[0, HALF, HALF] == 80060
    finally:
        cutouts._compiled.cache_clear()


def test_positions_are_rounded_not_truncated():
    """The original truncated, so that the sub-pixel phase depended on the source of positions."""
    x = np.array([-0.5, -0.4, 0.49, 0.5, 31.5, 99.99])
    cx, cy = centre_pixel(x, x)
    assert cx.tolist() == cy.tolist() == [0, 0, 0, 1, 32, 100]
    assert ((x - cx >= -0.5) & (x - cx < 0.5)).all()


def test_o03_bounds_are_zero_based_and_exact():
    """Pixels 32 to n - 32 are the centres whose stamp is inside."""
    cx = np.array([31, 32, NX - 32, NX - 31, 80, 80, 80, 80])
    cy = np.array([80, 80, 80, 80, 31, 32, NY - 32, NY - 31])
    inside = [False, True, True, False, False, True, True, False]
    assert stamp_inside(cx, cy, (NY, NX), STAMP).tolist() == inside
    on = on_image(np.array([-1, 0, NX - 1, NX]), np.zeros(4, int), (NY, NX))
    assert on.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("cx", "cy"), [(0, 0), (NX - 1, NY - 1), (0, 100), (100, NY - 1), (31, 31), (NX - 31, 40)]
)
def test_o03_edge_stamps_have_the_same_shape_and_zeros_outside(plane, cx, cy):
    padded = np.pad(plane, STAMP)
    expected = padded[cy + 32 : cy + 96, cx + 32 : cx + 96].T
    np.testing.assert_array_equal(cut(plane, [cx], [cy], edge=True)[0], expected)


def test_an_image_smaller_than_a_stamp_has_edge_stamps_only(plane):
    small = plane[:40, :50]
    assert not stamp_inside(np.array([25]), np.array([20]), small.shape, STAMP)[0]
    stamp = cut(small, [25], [20], edge=True)[0]
    assert stamp.sum() == small.sum()
    assert cut(small, [], []).shape == (0, STAMP, STAMP)


@pytest.mark.parametrize("size", [32, 40, 41, 96])
def test_any_size_equals_a_plain_loop(plane, size):
    """Sizes that are no multiples of the loop's tile, also odd ones."""
    before = size // 2
    after = size - before
    draw = np.random.default_rng(size)
    cx = draw.integers(before, NX - after + 1, 20)
    cy = draw.integers(before, NY - after + 1, 20)
    assert stamp_inside(cx, cy, (NY, NX), size).all()
    expected = [
        plane[y - before : y + after, x - before : x + after].T for x, y in zip(cx, cy, strict=True)
    ]
    np.testing.assert_array_equal(cut(plane, cx, cy, size=size), expected)
    np.testing.assert_array_equal(cut(plane, cx, cy, edge=True, size=size), expected)


def test_one_step_beyond_the_bounds_is_not_inside():
    for size in (32, 41):
        before, after = size // 2, size - size // 2
        centres = np.array([before - 1, before, NX - after, NX - after + 1])
        found = stamp_inside(centres, np.full(4, 75), (NY, NX), size)
        assert found.tolist() == [False, True, True, False]


def test_what_lies_beyond_the_image_gets_the_fill(plane):
    out = np.zeros((1, 32, 32, 1), "f4")
    cutouts.gather_edge(plane[None], np.array([0]), np.array([NY - 1]), out, fill=np.nan)
    stamp = out[0, ..., 0]
    assert np.isnan(stamp[:16]).all()
    assert np.isnan(stamp[:, 17:]).all()
    np.testing.assert_array_equal(stamp[16:, :17], plane[NY - 17 :, :16].T)
