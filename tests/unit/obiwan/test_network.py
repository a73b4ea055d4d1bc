"""The network's shape and weights, and the normalisation of its input."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from skyproof.core.errors import InputError
from skyproof.core.seeds import stream
from skyproof.learn import device
from skyproof.obiwan.network import Normalise, StampClassifier, initialise, loss_and_accuracy

STREAM = partial(stream, 1, "obiwan.train")


@pytest.fixture(autouse=True)
def _portable() -> None:
    device.configure("cpu", 1, "portable")


def write_stamps(path: Path, seed: int, n: int = 6, bands: int = 3) -> Path:
    """Write noise of a known inverse variance, 10^2 (band + 1), with a masked column."""
    x = np.empty((n, 64, 64, 2 * bands), np.float32)
    for band in range(bands):
        ivar = 100.0 * (band + 1)
        x[..., 2 * band] = np.random.default_rng([seed, band]).normal(0, ivar**-0.5, x.shape[:3])
        x[..., 2 * band + 1] = ivar
    x[:, :, 5] = 0
    np.save(path, x)
    return path


@pytest.mark.parametrize("pool", ["code", "table"])
def test_o08_the_network_has_the_published_size(pool: str):
    """o08: 353,786 parameters; the first convolution has 5,310."""
    network = StampClassifier(3, pool)
    counts = [p.numel() for p in network.parameters()]
    assert sum(counts) == 353_786
    assert sum(counts[:2]) == 5_310
    shapes = []
    for layer in network.layers:
        layer.register_forward_hook(lambda _layer, _in, out: shapes.append(tuple(out.shape[1:])))
    assert network(torch.zeros(2, 64, 64, 6)).shape == (2, 2)
    sizes = [(18, 64, 64), (18, 32, 32), (36, 32, 32), (36, 16, 16), (54, 16, 16), (54, 8, 8)]
    assert shapes[0:9:3] + shapes[2:9:3] == sizes[0::2] + sizes[1::2]


def test_the_two_poolings_differ():
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 64, 64, 2))).float()
    outputs = []
    for pool in ("code", "table"):
        network = StampClassifier(1, pool)
        initialise(network, STREAM)
        outputs.append(network(x))
    assert not torch.equal(*outputs)


def test_weights_come_from_the_named_streams_alone():
    first, second, other = (StampClassifier(3, "code") for _ in range(3))
    torch.manual_seed(1)
    initialise(first, STREAM)
    torch.rand(10)
    initialise(second, STREAM)
    initialise(other, partial(stream, 2, "obiwan.train"))
    a, b, c = (torch.cat([p.flatten() for p in n.parameters()]) for n in (first, second, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    weight = first.layers[3].weight
    assert weight.std().item() == pytest.approx((2 / (18 * 49)) ** 0.5, rel=0.02)


def test_loss_and_accuracy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)]])
    values = loss_and_accuracy(logits, torch.tensor([0, 1]))
    assert values["loss"].item() == pytest.approx((np.log(2) + np.log(4 / 3)) / 2, rel=1e-6)
    assert values["accuracy"].item() == 1.0


def test_noise_becomes_one_and_masked_pixels_are_flagged(tmp_path: Path):
    normalise = Normalise(3)
    normalise.fit([write_stamps(tmp_path / f"x{k}.npy", k) for k in range(3)])
    assert normalise.scale.tolist() == pytest.approx([10, 200**0.5, 300**0.5], rel=1e-6)
    out = normalise(torch.from_numpy(np.load(tmp_path / "x1.npy")))
    assert out.shape == (6, 6, 64, 64)
    assert out.is_contiguous(memory_format=torch.channels_last)
    good = torch.ones(64, dtype=torch.bool)
    good[5] = False
    for band in range(3):
        image, ivar = out[:, 2 * band], out[:, 2 * band + 1]
        assert image[:, :, good].std().item() == pytest.approx(1, abs=0.02)
        assert image[:, :, good].mean().item() == pytest.approx(0, abs=0.02)
        assert (image[:, :, 5] == 0).all()
        assert (ivar[:, :, 5] < ivar[:, :, good].min()).all()
        assert ivar[:, :, good].abs().max() < 0.3


def test_a_row_is_normalised_independently_of_the_other_rows(tmp_path: Path):
    normalise = Normalise(3)
    normalise.fit([write_stamps(tmp_path / "x.npy", 1)])
    x = torch.from_numpy(np.load(tmp_path / "x.npy"))
    assert torch.equal(normalise(x)[2:3], normalise(x[2:3]))


def test_statistics_depend_neither_on_order_nor_on_other_files(tmp_path: Path):
    """The test part is in the same folders: its content must not change the statistics."""
    train = [write_stamps(tmp_path / f"xtrain_{k}.npy", k) for k in range(3)]
    write_stamps(tmp_path / "xtest_1.npy", 77)
    first, second, other = Normalise(3), Normalise(3), Normalise(3)
    first.fit(train)
    write_stamps(tmp_path / "xtest_1.npy", 78)
    second.fit(train[::-1])
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))
    other.fit(train[:2])
    assert not torch.equal(first.mean, other.mean)


def test_float16_stamps_give_nearly_the_same(tmp_path: Path):
    normalise = Normalise(3)
    normalise.fit([write_stamps(tmp_path / "x.npy", 1)])
    x = np.load(tmp_path / "x.npy")
    half = normalise(torch.from_numpy(x.astype(np.float16)))
    # float16 keeps 11 bits; the brightest pixel here is about 5 sigma.
    assert (half - normalise(torch.from_numpy(x))).abs().max() < 0.005


def test_a_band_that_is_masked_everywhere_is_an_error(tmp_path: Path):
    path = write_stamps(tmp_path / "x.npy", 1)
    x = np.load(path)
    x[..., 3] = 0
    np.save(path, x)
    with pytest.raises(InputError, match="band 1 is masked in all training files"):
        Normalise(3).fit([path])


def test_nan_is_an_error_before_training(tmp_path: Path):
    path = write_stamps(tmp_path / "x.npy", 1)
    x = np.load(path)
    x[4, 1, 1, 1] = np.nan
    np.save(path, x)
    with pytest.raises(InputError, match=r"x.npy, record row 4: holds NaN"):
        Normalise(3).fit([path])
