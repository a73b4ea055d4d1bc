"""Stage sysnet.export: write the networks in the file formats of the original SYSNet.

`model_<fold>_<seed>/` contains best.pth.tar, snapshot_<epoch>.pth.tar if snapshots were kept, and
the figure loss_model_<fold>_<seed>.png; `models.tar.gz` contains all checkpoints in one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from skyproof.assess.plots import BLUE, ORANGE, style
from skyproof.core.blocks import ItemFiles
from skyproof.core.formats import write
from skyproof.sysnet.members.member import SavedNetwork, find_members, read_member
from skyproof.sysnet.original.checkpoints import (
    BEST,
    best_checkpoint,
    folder_of,
    snapshot_checkpoint,
)

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Export

ARCHIVE = "models.tar.gz"


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Export, context: Context
) -> None:
    """Write the folder of every network, and the archive if `do_tar` is set."""
    places = {folder_of(place.fold, place.seed): place for place in find_members(inputs.members)}

    def make(item: str, files: ItemFiles) -> dict[str, int]:
        if item == ARCHIVE:
            with files.write(ARCHIVE) as path:
                members = (read_member(place.path) for place in places.values())
                write.tar_gz(path, (file for member in members for file in checkpoints(member)))
            return {"members": len(places)}
        member = read_member(places[item].path)
        for name, content in checkpoints(member):
            with files.write(name) as path:
                path.write_bytes(content)
        with files.write(f"{item}/loss_{item}.png") as path, style():
            write.figure(path, loss_figure(member))
        return {"fold": member.fold, "chain": member.chain, "seed": member.seed}

    items = [*places, ARCHIVE] if options.do_tar else list(places)
    context.each(items, make, outputs.export)


def checkpoints(member: SavedNetwork) -> Iterator[tuple[str, bytes]]:
    """Yield path, relative to the folder of the block index, and content of the checkpoints."""
    folder = folder_of(member.fold, member.seed)
    yield f"{folder}/{BEST}", best_checkpoint(member)
    for epoch in member.snapshots:
        yield f"{folder}/snapshot_{epoch}.pth.tar", snapshot_checkpoint(member, epoch)


def loss_figure(member: SavedNetwork) -> Figure:
    """Draw the losses by epoch; a ring marks the best epoch."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(member.train, color=BLUE, label="training")
    axes.plot(member.valid, color=ORANGE, linestyle="--", label="validation")
    axes.plot(member.best_epoch, member.best_loss, "o", color=ORANGE, fillstyle="none")
    axes.set(xlabel="epoch", ylabel=member.loss.upper(), title=f"fold {member.fold}")
    axes.legend()
    return figure
