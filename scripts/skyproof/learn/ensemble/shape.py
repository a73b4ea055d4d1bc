"""The layers of the networks of an ensemble, and the tensors of the weights of all members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """A stack of dense layers with rectifiers: `widths` are features, hidden units, outputs.

    `norm` is the position of batch normalisation, before or after each rectifier. `dropout` is the
    fraction of dropped units of each hidden layer, directly after its rectifier (before it is
    equivalent); empty: none.
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
        """Whether the outputs of a batch depend on all its rows."""
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
        self.flat, self.layout = flat, tuple(layout)
        self.views: dict[str, Tensor] = {}
        start = 0
        for name, shape in self.layout:
            stop = start + prod(shape)
            self.views[name] = flat[:, start:stop].unflatten(1, shape)
            start = stop
        # [E, units, 1], broadcast over rows
        self.columns = {name: view[:, :, None] for name, view in self.views.items()}

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
    """Return the number of elements of a member in a flat tensor."""
    return sum(prod(shape) for _, shape in layout)
