"""Number of bricks, input files and cost of every job, known before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skyproof.core.cost import Cost
from skyproof.core.errors import InputError, UsageError
from skyproof.obiwan.bricks.bricklist import read_brick_list
from skyproof.obiwan.stamps.geometry import STAMP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyproof.obiwan.options import System

SURVEY_BRICK_PIXELS = 3600
_PYTHON_MB = 400
_STAMPS_PER_SURVEY_BRICK = 2000
# Fractions of the simulated or listed sources: cut out, and in training and test rows.
_CUT_OUT = 0.68
_KEPT = 0.55
_IMAGES_PER_SECOND = 100  # of a training on one core; inference is three times as fast
_GPU_IMAGES_PER_SECOND = 5000  # a guess; not measured on a GPU


class Plan:
    """Counts and costs of one configured run."""

    def __init__(self, config: System) -> None:
        self.config = config
        self.n_bricks = self._count()
        simulated = config.source == "simulate"
        pixels = config.simulate.brick_pixels if simulated else SURVEY_BRICK_PIXELS
        self.megapixels = pixels**2 / 1e6
        per_brick = config.simulate.n_real + config.simulate.n_fake
        self.sources = self.n_bricks * (per_brick if simulated else _STAMPS_PER_SURVEY_BRICK)

    def _count(self) -> int:
        if self.config.source == "simulate":
            return self.config.simulate.n_bricks
        if self.config.source == "ingest":
            # One block, as the bricks that the exposures cover are known only after they are read.
            for name in ("ccds", "images", "calib"):
                if not getattr(self.config.exposures, name):
                    raise UsageError(f"obiwan.exposures.{name}: is required with source: ingest")
            return 1
        return count_listed(self.config.release.bricks)

    @property
    def bricks(self) -> str:
        """The input of the cutouts: a block index of bricks, or the release's list of names."""
        return {
            "simulate": "results/obiwan/simulate/simulated-{block}.json",
            "ingest": "results/obiwan/ingest/ingested-{block}.json",
            "release": self.config.release.bricks,
        }[self.config.source]

    def folders(self, stage: str) -> dict[str, str]:
        """Return the folders that a stage reads, by input: of exposures, or of a release."""
        exposures, release = self.config.exposures, self.config.release
        if stage == "ingest":
            return {"images": exposures.images, "calib": exposures.calib}
        if self.config.source != "release":
            return {}
        if not release.real:
            raise UsageError("obiwan.release.real: is required with source: release")
        return {"real": release.real, "fake": release.fake or release.real}

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches in a training step, which ranks share."""
        train = self.config.train
        return -(-train.batch // train.micro_batch)

    @property
    def megabytes(self) -> float:
        """Size of all products."""
        made = {"release": []}.get(self.config.source, [self.config.source])
        stages = (*made, "cutouts", "assign", "split", "train", "infer", "evaluate")
        return sum(self.cost(stage, {}).megabytes for stage in stages)

    def cost(self, stage: str, wildcards: Mapping[str, str]) -> Cost:
        """Return the cost of one job of a stage, for its block (without one, for all).

        Constants are CPU seconds of one core and bytes, measured in runs of 6 to 24 bricks.
        """
        config = self.config
        bricks = self._bricks_of(wildcards.get("block"))
        sources = bricks * self.sources / max(self.n_bricks, 1)
        exposed = bricks * self.megapixels * len(config.bands) / 3  # 10^6 pixels of three bands
        brick_mb = self.megapixels * 4 * 2 * len(config.bands)  # image and inverse variance
        stamp_mb = STAMP**2 * 4 * 2 * len(config.bands) / 1e6
        split_mb = stamp_mb / (2 if config.split.dtype == "float16" else 1)
        rows = self.sources * _KEPT
        test = rows * config.assign.test_fraction
        passes = (rows - test) * config.train.n_epochs
        draws = config.evaluate.n_bootstrap + config.evaluate.n_permutations
        costs = {  # core seconds, megabytes of products, memory of a rank [MB]
            "simulate": Cost(
                0.45 * exposed + 0.0004 * sources,
                3.1 * exposed,
                _PYTHON_MB + 4 * brick_mb,
                start=0.7,
                parts=bricks,
            ),
            # The number of bricks is not known before the run; assume that of one block.
            "ingest": Cost(
                20 * exposed * config.block_size,
                9 * exposed * config.block_size,
                500 + 3 * brick_mb,
                start=3,
                parts=config.block_size,
            ),
            "cutouts": Cost(
                0.12 * exposed + 0.0001 * sources,
                _CUT_OUT * sources * stamp_mb,
                _PYTHON_MB + 4 * brick_mb,
                start=1,
                parts=bricks,
            ),
            "assign": Cost(0.0003 * bricks, 0.0004 * bricks, 500 + bricks / 100, start=0.5),
            "split": Cost(
                0.0002 * sources,
                _KEPT * sources * split_mb,
                _PYTHON_MB + 4 * stamp_mb * self.sources / max(self.n_bricks, 1),
                start=0.5,
                parts=bricks,
            ),
            "train": Cost(
                passes / _IMAGES_PER_SECOND,
                1.5 + 0.0001 * passes / config.train.batch,
                4000,
                start=4,
                parts=self.micro_batches,
                gpu_seconds=passes / _GPU_IMAGES_PER_SECOND,
            ),
            "infer": Cost(
                test / (3 * _IMAGES_PER_SECOND),
                0.0002 * test,
                2000,
                start=3,
                parts=max(int(test / config.infer.batch), 1),
                gpu_seconds=test / (3 * _GPU_IMAGES_PER_SECOND),
            ),
            "evaluate": Cost(2e-7 * test * draws, 1, 2000, start=2.5),
        }
        return costs[stage]

    def _bricks_of(self, block: str | None) -> int:
        """Return the number of bricks of a block; of all bricks without a block."""
        if block is None or self.config.source == "ingest":
            return self.n_bricks
        size = self.config.block_size
        return max(min(size, self.n_bricks - int(block) * size), 0)


def count_listed(path: str) -> int:
    """Return the number of bricks in a release's list (UsageError if it cannot be read)."""
    try:
        return len(read_brick_list(Path(path)))
    except OSError as error:
        raise UsageError(f"obiwan.release.bricks: {path}: cannot be read: {error}") from None
    except InputError as error:
        raise UsageError(f"obiwan.release.bricks: {error}") from None
