"""What the rules must know before anything runs: how many bricks, which files, how much of what."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from skyproof.core.cost import Work
from skyproof.core.errors import InputError, UsageError
from skyproof.obiwan.bricks.bricklist import read_brick_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyproof.obiwan.options import System

SURVEY_BRICK_PIXELS = 3600
_PYTHON_MB = 400
# Measured on one core of a laptop: seconds to make, cut and split 10^6 pixels of a brick in three
# bands, with room for a slow disk.
_SECONDS_PER_MEGAPIXEL = 8
_IMAGES_PER_SECOND = 100
_STAMPS_PER_SURVEY_BRICK = 2000
# Of the sources that are made or listed, how many become stamps, and rows of training and test.
_CUT_OUT = 0.68
_KEPT = 0.55
# A guess: no GPU was at hand.
_GPU_IMAGES_PER_SECOND = 5000


class Plan:
    """Counts and estimates of one configured run."""

    def __init__(self, config: System) -> None:
        self.config = config
        self.n_bricks = self._count()
        simulated = config.source == "simulate"
        pixels = config.simulate.brick_pixels if simulated else SURVEY_BRICK_PIXELS
        self.megapixels = pixels**2 / 1e6
        self.stamps = self.n_bricks * (
            config.simulate.n_real + config.simulate.n_fake
            if simulated
            else _STAMPS_PER_SURVEY_BRICK
        )

    def _count(self) -> int:
        if self.config.source == "simulate":
            return self.config.simulate.n_bricks
        if self.config.source == "ingest":
            # Exposures tell only when they are read which bricks they cover: one block.
            for name in ("ccds", "images", "calib"):
                if not getattr(self.config.exposures, name):
                    raise UsageError(f"obiwan.exposures.{name}: is needed with source: ingest")
            return 1
        return count_listed(self.config.release.bricks)

    @property
    def bricks(self) -> str:
        """The input of the cutouts: a record of bricks, or the release's list of names."""
        return {
            "simulate": "results/obiwan/bricks/simulated-{block}.json",
            "ingest": "results/obiwan/bricks/ingested-{block}.json",
            "release": self.config.release.bricks,
        }[self.config.source]

    @property
    def trees(self) -> str:
        """Words that name the trees of a release; a record's own folder needs no word."""
        release = self.config.release
        if self.config.source != "release":
            return ""
        if not release.real:
            raise UsageError("obiwan.release.real: is needed with source: release")
        return f"real={quote(release.real)} fake={quote(release.fake or release.real)}"

    @property
    def brick_mb(self) -> float:
        """Image and inverse variance of a brick in all bands, float32."""
        return self.megapixels * 4 * 2 * len(self.config.bands)

    @property
    def simulate_mb(self) -> float:
        """Memory of a rank."""
        return _PYTHON_MB + 4 * self.brick_mb

    @property
    def cutouts_mb(self) -> float:
        """Memory of a rank."""
        return _PYTHON_MB + 4 * self.brick_mb

    @property
    def split_mb(self) -> float:
        """Memory of a rank."""
        per_stamp = 64 * 64 * 4 * 2 * len(self.config.bands) / 1e6
        return _PYTHON_MB + 4 * per_stamp * self.stamps / max(self.n_bricks, 1)

    @property
    def minutes(self) -> float:
        """Wall time of a block on one rank, with room for a node that loads everything anew."""
        return 5 + self.config.block_size * self.megapixels * _SECONDS_PER_MEGAPIXEL / 60

    @property
    def micro_batches(self) -> int:
        """Parts of a training step, which ranks share."""
        train = self.config.train
        return -(-train.batch // train.micro_batch)

    @property
    def train_minutes(self) -> float:
        return 5 + self.stamps * self.config.train.n_epochs / _IMAGES_PER_SECOND / 60

    @property
    def infer_minutes(self) -> float:
        """Wall time on one rank; a pass forward takes a third of a step."""
        test = self.stamps * self.config.assign.test_fraction
        return 5 + test / (3 * _IMAGES_PER_SECOND) / 60

    @property
    def evaluate_minutes(self) -> float:
        return 20 + 3 * self.work("evaluate", {}).core_seconds / 60

    @property
    def megabytes(self) -> float:
        """All products."""
        made = {"release": []}.get(self.config.source, [self.config.source])
        stages = (*made, "cutouts", "assign", "split", "train", "infer", "evaluate")
        return sum(self.work(stage, {}).megabytes for stage in stages)

    @property
    def stamp_mb(self) -> float:
        """Image and inverse variance of a stamp in all bands, float32."""
        return 64 * 64 * 4 * 2 * len(self.config.bands) / 1e6

    def work(self, stage: str, wildcards: Mapping[str, str]) -> Work:
        """Return what a job of a stage has to do, its block given by the wildcards.

        Constants are CPU seconds of one core and bytes, of runs of 6 to 24 bricks.
        """
        bricks = self._bricks_of(wildcards.get("block"))
        sources = bricks * self.stamps / max(self.n_bricks, 1)
        exposed = (
            bricks * self.megapixels * len(self.config.bands) / 3
        )  # 10^6 pixels of three bands
        rows = self.stamps * _KEPT
        test = rows * self.config.assign.test_fraction
        passes = (rows - test) * self.config.train.n_epochs
        half = self.config.split.dtype == "float16"
        judged = self.config.evaluate.n_bootstrap + self.config.evaluate.n_permutations
        infer_seconds = test / (3 * _IMAGES_PER_SECOND)
        jobs = {
            "simulate": Work(0.45 * exposed + 0.0004 * sources, 3.1 * exposed, 0.7, bricks),
            "ingest": Work(20 * exposed, 9 * exposed, 3, bricks),
            "cutouts": Work(
                0.12 * exposed + 0.0001 * sources, _CUT_OUT * sources * self.stamp_mb, 1, bricks
            ),
            "assign": Work(0.0003 * bricks, 0.0004 * bricks, 0.5),
            "split": Work(
                0.0002 * sources,
                _KEPT * sources * self.stamp_mb / (2 if half else 1),
                0.5,
                bricks,
            ),
            "train": Work(
                passes / _IMAGES_PER_SECOND,
                1.5 + 0.0001 * passes / self.config.train.batch,
                4,
                self.micro_batches,
                passes / _GPU_IMAGES_PER_SECOND,
            ),
            "infer": Work(
                infer_seconds,
                0.0002 * test,
                3,
                max(int(test / self.config.infer.batch), 1),
                test / (3 * _GPU_IMAGES_PER_SECOND),
            ),
            "evaluate": Work(2e-7 * test * judged, 1, 2.5),
        }
        return jobs[stage]

    def _bricks_of(self, block: str | None) -> int:
        """Return the bricks of a block; of all where there is none."""
        if block is None or self.config.source == "ingest":
            return self.n_bricks
        size = self.config.block_size
        return max(min(size, self.n_bricks - int(block) * size), 0)


def count_listed(path: str) -> int:
    """Return how many bricks a release's list names (UsageError if it cannot be read)."""
    try:
        return len(read_brick_list(Path(path)))
    except OSError as error:
        raise UsageError(f"obiwan.release.bricks: {path}: cannot be read: {error}") from None
    except InputError as error:
        raise UsageError(f"obiwan.release.bricks: {error}") from None
