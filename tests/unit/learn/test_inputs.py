"""Assembly of inputs on the device: normalisation, symmetries of a square."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skyproof.learn.inputs import NormaliseChannels, Symmetries, transformed


def by_slices(image: np.ndarray, kind: int) -> np.ndarray:
    """Map an image [s, s, ...] by a symmetry with numpy's slices."""
    image = image[:: -1 if kind & 1 else 1, :: -1 if kind & 2 else 1]
    return image.swapaxes(0, 1) if kind & 4 else image


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "bool"])
@pytest.mark.parametrize("more", [(), (3,)])
def test_images_are_mapped_as_by_slices(dtype: str, more: tuple[int, ...]):
    x = (np.random.default_rng(1).uniform(0, 9, (20, 5, 5, *more)) // 1).astype(dtype)
    kinds = np.random.default_rng(2).integers(0, 8, 20)
    found = transformed(torch.from_numpy(x), torch.from_numpy(kinds))
    assert found.numpy().dtype == x.dtype
    for image, source, kind in zip(found.numpy(), x, kinds, strict=True):
        assert (image == by_slices(source, kind)).all()


def test_the_eight_kinds_are_the_symmetries_of_a_square():
    image = np.random.default_rng(1).normal(size=(5, 5, 3))
    wanted = {
        np.rot90(side, k).tobytes() for k in range(4) for side in (image, image.swapaxes(0, 1))
    }
    x = torch.from_numpy(np.stack([image] * 8))
    out = transformed(x, torch.arange(8))
    assert {one.numpy().tobytes() for one in out} == wanted
    assert len(wanted) == 8
    assert torch.equal(out[0], x[0])


def test_maps_are_mapped_with_their_images_and_validation_rows_stay():
    x = torch.arange(4 * 8 * 8.0).view(4, 8, 8, 1)
    y = x[:, ::4, ::4, 0]  # a coarser map of the same field
    symmetries = Symmetries(maps=True)
    drawn = torch.tensor([0, 3, 5, 6])
    turned_x, turned_y = symmetries(x, y, drawn)
    for image, coarse, kind in zip(turned_x, turned_y, drawn.tolist(), strict=True):
        original = x[int(image.min() // 64)].numpy()
        assert (image.numpy() == by_slices(original, kind)).all()
        assert (coarse.numpy() == by_slices(original[::4, ::4, 0], kind)).all()
    assert Symmetries()(x, y, drawn)[1] is y
    assert symmetries(x, y, None) == (x, y)


def test_mirrors_only():
    drawn = Symmetries(kinds=4).draw(np.random.default_rng(1), 1000)
    assert set(drawn.tolist()) == {0, 1, 2, 3}


def test_an_image_that_is_not_square_is_an_error():
    with pytest.raises(ValueError, match="5 x 4"):
        transformed(torch.zeros(1, 5, 4), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_channels_are_normalised_after_the_symmetries(dtype: str):
    x = torch.from_numpy(np.random.default_rng(1).integers(0, 9, (8, 5, 5, 2)).astype(dtype))
    y, symmetries = torch.zeros(8), Symmetries()
    assembly = NormaliseChannels((1.0, 4.0), (2.0, 0.5), before=symmetries)
    drawn = assembly.draw(np.random.default_rng(3), 8)
    assert (drawn == symmetries.draw(np.random.default_rng(3), 8)).all()
    turned = transformed(x, torch.from_numpy(drawn)).numpy()
    found, targets = assembly(x, y, torch.from_numpy(drawn))
    assert found.dtype == torch.float32
    assert (found.numpy() == (turned.astype("f4") - [1, 4]) / np.float32([2, 0.5])).all()
    assert targets is y
    # Validation rows are normalised, but not mapped; so are all rows without symmetries.
    stored = (x.numpy().astype("f4") - [1, 4]) / np.float32([2, 0.5])
    assert (assembly(x, y, None)[0].numpy() == stored).all()
    alone = NormaliseChannels((1.0, 4.0), (2.0, 0.5))
    rows = torch.from_numpy(alone.draw(np.random.default_rng(3), 8))
    assert (alone(x, y, rows)[0].numpy() == stored).all()


def test_normalisation_of_other_channels_is_an_error():
    with pytest.raises(ValueError, match="3 channels, but 2"):
        NormaliseChannels((0.0, 0.0), (1.0, 1.0))(torch.zeros(1, 3), torch.zeros(1), None)
    for scale in ((1.0,), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="do not normalise"):
            NormaliseChannels((0.0, 0.0), scale)
