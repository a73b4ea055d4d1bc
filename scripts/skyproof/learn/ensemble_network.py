"""Many small networks of one shape, one step at a time: forward, and backward by hand.

Activations are [E, units, rows], rows last, and weights [E, out, in]: sums over rows, bias and
normalisation then run along memory, which makes a step some two times faster than [E, rows, units]
with autograd. A member's numbers come from its own slice of every tensor only.

Batch normalisation (formula A6) is an affine map of the rows, so behind a rectifier it enters the
weights of the layer above and costs no pass over the rows of its own. Square roots are taken by
`rsqrt`, which divides 1 by the correctly rounded root; torch.sqrt differs between processors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-5  # of batch normalisation
MOMENTUM = 0.1

# (outputs of the last layer [E, out, rows], labels [E, rows], weights [E, rows]) -> [E, rows]
RowLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """A stack of dense layers with rectifiers: `widths` are features, hidden units, outputs.

    `norm` says where batch normalisation stands, before or after each rectifier. `dropout` is the
    share of dropped units of each hidden layer, right behind its rectifier (or before it, which is
    the same); empty: none.
    """

    widths: tuple[int, ...]
    norm: Literal["before", "after", "none"] = "after"
    dropout: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths} need features and outputs")
        if self.dropout and len(self.dropout) != self.n_hidden:
            raise ValueError(f"{len(self.dropout)} dropouts for {self.n_hidden} hidden layers")

    @property
    def n_hidden(self) -> int:
        return len(self.widths) - 2

    @property
    def normalised(self) -> bool:
        """Whether rows of a batch depend on each other."""
        return self.n_hidden > 0 and self.norm != "none"

    def parameters(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of a member's parameters: weight.0, bias.0, gamma.0, beta.0, ..."""
        for i, (n_in, n_out) in enumerate(pairwise(self.widths)):
            yield f"weight.{i}", (n_out, n_in)
            yield f"bias.{i}", (n_out,)
            if self.norm != "none" and i < self.n_hidden:
                yield f"gamma.{i}", (n_out,)
                yield f"beta.{i}", (n_out,)

    def statistics(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of a member's running statistics: mean.0, variance.0, ..."""
        if self.norm != "none":
            for i, units in enumerate(self.widths[1:-1]):
                yield f"mean.{i}", (units,)
                yield f"variance.{i}", (units,)


class Pack:
    """Named tensors of all members, as views of one flat tensor [E, P]."""

    def __init__(self, flat: Tensor, layout: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        self.flat, self.layout, self.views = flat, tuple(layout), {}
        start = 0
        for name, shape in self.layout:
            stop = start + prod(shape)
            self.views[name] = flat[:, start:stop].unflatten(1, shape)
            start = stop

    def __getitem__(self, name: str) -> Tensor:
        return self.views[name]

    def put(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Set one member's tensors."""
        for name, view in self.views.items():
            view[index] = tensors[name].to(view.device)

    def member(self, index: int) -> dict[str, Tensor]:
        """Return copies of one member's tensors, by name."""
        return {name: view[index].clone() for name, view in self.views.items()}


def size_of(layout: Sequence[tuple[str, tuple[int, ...]]]) -> int:
    """Return the length of a member's row in a flat tensor."""
    return sum(prod(shape) for _, shape in layout)


class Batch(NamedTuple):
    """One step's rows. Where members have fewer rows than others, `mask` has 0 for the rest."""

    x: Tensor  # [E, rows, features]
    y: Tensor  # [E, rows]
    weight: Tensor  # [E, rows], >= 0
    inverse: Tensor  # [E, 1], one over the number of a member's rows
    mask: Tensor | None  # [E, 1, rows], 1 or 0; None: all ones
    dropout: tuple[Tensor | None, ...]  # a hidden layer: factors [E, units, rows], or none


class Gradient(NamedTuple):
    """What a step finds: weighted losses, gradient, and statistics of each hidden layer."""

    loss: Tensor  # [E], sum of weight x loss over a member's rows
    flat: Tensor  # [E, P], in the order of Shape.parameters
    statistics: Tensor  # [E, R], mean and unbiased variance, in the order of Shape.statistics


def gradient(shape: Shape, loss: RowLoss, mean: bool, parameters: Pack, batch: Batch) -> Gradient:
    """Return losses and gradient of every member at a batch.

    The gradient is of sum(w l) / sum(w), or of sum(w l) where `mean` is False. A member without
    rows gets zeros, or numbers without meaning: the caller must leave it as it is.
    """
    tape = _forward(shape, parameters, batch)
    last = shape.n_hidden
    outputs = torch.baddbmm(tape.bias[last][:, :, None], tape.weight[last], tape.inputs[last])
    weight = batch.weight if batch.mask is None else batch.weight * batch.mask[:, 0]
    factor = weight / weight.sum(1, keepdim=True) if mean else weight

    def total(outputs: Tensor) -> tuple[Tensor, Tensor]:
        rows = loss(outputs, batch.y, batch.weight)
        return (rows * factor).sum(), (rows * weight).sum(1)

    slope, losses = torch.func.grad(total, has_aux=True)(outputs)
    found = _backward(shape, parameters, batch, tape, slope)
    flat = torch.cat([found[name].flatten(1) for name, _ in shape.parameters()], 1)
    statistics = torch.cat(tape.statistics, 1) if tape.statistics else flat[:, :0]
    return Gradient(losses, flat, statistics)


class _Tape(NamedTuple):
    """What the forward pass leaves for the backward pass, by layer.

    Layer i computes weight[i] inputs[i] + bias[i], in which `weight` and `bias` hold the affine map
    (scale, shift) of a normalisation behind the rectifier of the layer below.
    """

    inputs: list[Tensor]
    weight: list[Tensor]
    bias: list[Tensor]
    scale: list[Tensor | None]
    shift: list[Tensor | None]
    centred: list[Tensor | None]  # of a normalisation before the rectifier
    mean: list[Tensor]
    root: list[Tensor]  # one over the standard deviation
    statistics: list[Tensor]


def _forward(shape: Shape, parameters: Pack, batch: Batch) -> _Tape:
    tape = _Tape([batch.x.transpose(1, 2)], [], [], [None], [None], [], [], [], [])
    for i in range(shape.n_hidden + 1):
        weight, bias = _folded(parameters, i, tape.scale[i], tape.shift[i])
        tape.weight.append(weight)
        tape.bias.append(bias)
        if i == shape.n_hidden:
            break
        z = torch.baddbmm(bias[:, :, None], weight, tape.inputs[i])
        scale = shift = centred = None
        if shape.norm == "before":
            centred, slant = _normalised(_times(z, batch.mask), parameters, batch, tape, i)
            z = torch.addcmul(parameters[f"beta.{i}"][:, :, None], centred, slant[:, :, None])
        z = _times(z.relu_(), batch.dropout[i])
        if shape.norm == "after":
            _, scale = _normalised(_times(z, batch.mask), parameters, batch, tape, i)
            shift = parameters[f"beta.{i}"] - tape.mean[i] * scale
        tape.inputs.append(z)
        tape.scale.append(scale)
        tape.shift.append(shift)
        tape.centred.append(centred)
    return tape


def _folded(
    parameters: Pack, i: int, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    weight, bias = parameters[f"weight.{i}"], parameters[f"bias.{i}"]
    if scale is None or shift is None:
        return weight, bias
    return weight * scale[:, None, :], bias + (weight * shift[:, None, :]).sum(2)


def _normalised(
    z: Tensor, parameters: Pack, batch: Batch, tape: _Tape, i: int
) -> tuple[Tensor, Tensor]:
    """Return z less its mean over a member's rows, and gamma over its standard deviation."""
    mean = z.sum(2) * batch.inverse
    centred = z - mean[:, :, None]
    if batch.mask is not None:
        centred = centred * batch.mask
    variance = (centred * centred).sum(2) * batch.inverse
    root = torch.rsqrt(variance + EPSILON)
    tape.mean.append(mean)
    tape.root.append(root)
    tape.statistics.extend((mean, variance / (1 - batch.inverse)))
    return centred, parameters[f"gamma.{i}"] * root


def _times(z: Tensor, factors: Tensor | None) -> Tensor:
    return z if factors is None else z.mul_(factors)


def _backward(
    shape: Shape, parameters: Pack, batch: Batch, tape: _Tape, slope: Tensor
) -> dict[str, Tensor]:
    """Return the gradient by name; `slope` is that of the last layer's outputs."""
    found: dict[str, Tensor] = {}
    for i in range(shape.n_hidden, -1, -1):
        weight, inputs = parameters[f"weight.{i}"], tape.inputs[i]
        product = torch.bmm(slope, inputs.transpose(1, 2))
        total = slope.sum(2)
        found[f"bias.{i}"] = total
        scale, shift = tape.scale[i], tape.shift[i]
        if scale is None or shift is None:
            found[f"weight.{i}"] = product
            if i > 0:
                slope = torch.bmm(weight.transpose(1, 2), slope)
        else:
            found[f"weight.{i}"] = product * scale[:, None, :] + total[:, :, None] * shift[:, None]
            mean, root, scale_root = tape.mean[i - 1], tape.root[i - 1], scale * tape.root[i - 1]
            beta = (weight * total[:, :, None]).sum(1)
            spread = ((weight * product).sum(1) - mean * beta) * root
            found[f"gamma.{i - 1}"], found[f"beta.{i - 1}"] = spread, beta
            of_input = -scale_root * spread * batch.inverse
            constant = -scale * beta * batch.inverse - of_input * mean
            slope = torch.baddbmm(constant[:, :, None], tape.weight[i].transpose(1, 2), slope)
            slope.addcmul_(inputs, of_input[:, :, None])
        if i > 0:
            slope = _through_rectifier(shape, parameters, batch, tape, slope, i - 1, found)
    return found


def _through_rectifier(
    shape: Shape,
    parameters: Pack,
    batch: Batch,
    tape: _Tape,
    slope: Tensor,
    i: int,
    found: dict[str, Tensor],
) -> Tensor:
    """Take the slope of hidden layer i's output to that of its linear part."""
    slope = _times(slope, batch.dropout[i])
    slope = torch.ops.aten.threshold_backward(slope, tape.inputs[i + 1], 0)  # 0 where not active
    centred = tape.centred[i]
    if centred is None:
        return slope
    root = tape.root[i]
    scale = parameters[f"gamma.{i}"] * root
    beta, spread = slope.sum(2), (slope * centred).sum(2) * root
    found[f"gamma.{i}"], found[f"beta.{i}"] = spread, beta
    slope = torch.addcmul((-scale * beta * batch.inverse)[:, :, None], slope, scale[:, :, None])
    slope.addcmul_(centred, (-scale * root * spread * batch.inverse)[:, :, None])
    return _times(slope, batch.mask)


def outputs_of(shape: Shape, parameters: Pack, statistics: Pack, x: Tensor) -> Tensor:
    """Return the outputs [E, out, rows] in evaluation: running statistics, no dropout."""
    h = x.transpose(1, 2)
    scale = shift = None
    for i in range(shape.n_hidden + 1):
        weight, bias = _folded(parameters, i, scale, shift)
        if shape.norm != "none" and i < shape.n_hidden:
            scale = parameters[f"gamma.{i}"] * torch.rsqrt(statistics[f"variance.{i}"] + EPSILON)
            shift = parameters[f"beta.{i}"] - statistics[f"mean.{i}"] * scale
            if shape.norm == "before":
                bias, weight = bias * scale + shift, weight * scale[:, :, None]
                scale = shift = None
        h = torch.baddbmm(bias[:, :, None], weight, h)
        if i < shape.n_hidden:
            h.relu_()
    return h
