"""Regions, input files and cost of every job, computed before the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyproof.core.cost import Cost
from skyproof.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyproof.sysnet.options import System
    from skyproof.sysnet.regions import MapFile, Region

# A table at nside 256 has about 200,000 rows; planning does not open maps and tables.
_SURVEY_ROWS = 400_000
_FEATURES = 20
_PYTHON_MB = 600
_SECONDS_PER_MEGAROW = 0.1  # of one core, for one network's pass over 10^6 rows
_CALIBRATION_MOCKS = 40  # drawn by mocks/null.py to fit the clustering, before the other mocks


class Plan:
    """Regions, their files, and costs of one configured run."""

    def __init__(self, config: System) -> None:
        self.config = config
        self.regions = list(config.regions)
        for name, region in config.regions.items():
            check_files(name, region)

    def table(self, wildcards: Any) -> str:
        """The table of a region, made by sysnet.mock or sysnet.tabulate."""
        made_by = "mock" if self._region(wildcards).source == "mock" else "tabulate"
        return f"results/sysnet/{wildcards.region}/{made_by}/table.fits"

    def truth(self, wildcards: Any) -> list[str]:
        """The truth of a mock region; an empty list for other regions."""
        known = self._region(wildcards).source == "mock"
        return [f"results/sysnet/{wildcards.region}/mock/truth.fits"] if known else []

    def sources(self, wildcards: Any) -> dict[str, list[str]]:
        """The files given by a region, by the inputs of sysnet.tabulate."""
        return sources(self._region(wildcards))

    def start(self, wildcards: Any) -> list[str]:
        """Block indexes of trained networks from which the training of a region starts."""
        return self._region(wildcards).start

    def job(self, wildcards: Mapping[str, str]) -> dict[str, Any]:
        """Values of the options that a region sets; an empty dict for a job of all regions."""
        if "region" not in wildcards:
            return {}
        region = self.config.regions[wildcards["region"]]
        names = region.names or list(region.templates)
        return region.model_dump(mode="json") | {"names": names, "forms": region.forms}

    def _region(self, wildcards: Any) -> Region:
        return self.config.regions[wildcards.region]

    @property
    def products(self) -> list[str]:
        """The final products, which are the targets of a run."""
        exports = [f"results/sysnet/{name}/export/export.json" for name in self.regions]
        return ["results/sysnet/summarise/verdict.md", *(exports if self.config.exports else [])]

    @property
    def n_members(self) -> int:
        """Number of networks of a region: folds x chains."""
        return self.config.split.n_folds * self.config.train.n_chains

    @property
    def n_groups(self) -> int:
        """Number of groups of networks of a region; the last group is padded."""
        return -(-self.n_members // self.config.group_size)

    @property
    def train_ranks(self) -> int:
        """Ranks of a training job, at most one per group of networks: others would be idle."""
        return min(self.config.train.block_size, self.n_groups)

    @property
    def rows(self) -> int:
        """Rows of the largest table: known for mock skies, otherwise a fixed estimate."""
        mocks = all(region.source == "mock" for region in self.config.regions.values())
        return 12 * self.config.mock.nside**2 if mocks else _SURVEY_ROWS

    @property
    def megabytes(self) -> float:
        """Size of all products of all regions [MB]."""
        stages = ("mock", "split", "train", "infer", "export", "baselines", "stack", "evaluate")
        return len(self.regions) * sum(self.cost(stage, {}).megabytes for stage in stages)

    def cost(self, stage: str, wildcards: Mapping[str, str]) -> Cost:
        """Return the cost of one job of a stage; all regions are assumed to have equal cost.

        Constants are CPU seconds of one core and bytes, measured on mock skies of nside 32.
        """
        config, members = self.config, self._members_of(wildcards.get("block"))
        folds, chains = config.split.n_folds, config.train.n_chains
        rows, megarows = self.rows, self.rows / 1e6
        table_mb = rows * (_FEATURES + 4) * 8 / 1e6
        a_pass = megarows * _SECONDS_PER_MEGAROW  # of one network over the table
        harmonic = 0.018 * (rows / 12288) ** 1.5  # transform of a mock sky and back
        layers, units = config.structure
        # The file of a network has three copies of the weights; training keeps about ten copies of
        # the activations.
        member_mb = 3 * layers * units**2 * 4e-6
        step_mb = config.group_size * config.batch * layers * units * 4 * 10 / 1e6
        training_mb = _PYTHON_MB + 4 * table_mb + step_mb
        predictions_mb = rows * chains * 8 / 1e6  # all of them on the first rank
        costs = {  # core seconds, megabytes of products, memory of a rank [MB]
            "mock": Cost(0.02 * harmonic + 40 * megarows, table_mb, _PYTHON_MB + 3 * table_mb),
            "tabulate": Cost(20 * megarows, table_mb, _PYTHON_MB + 6 * table_mb),
            "split": Cost(
                20 * megarows, megarows * (9 + 2 * folds), _PYTHON_MB + 4 * table_mb, start=1
            ),
            "select": Cost(
                20 * megarows * config.select.do_rfe, 0.001, _PYTHON_MB + 4 * table_mb, start=0.5
            ),
            "tune": Cost(self._searches * a_pass, 0.01, training_mb, start=3.5),
            "train": Cost(
                members * config.train.n_epochs * a_pass,
                members * (0.015 + member_mb),
                training_mb,
                start=3.5,
                parts=-(-members // config.group_size),
            ),
            "infer": Cost(
                self.n_members * a_pass,
                megarows * 8 * (1 + chains),
                _PYTHON_MB + 3 * table_mb + 3 * predictions_mb,
                start=3.5,
                parts=self.n_members,
            ),
            "export": Cost(
                0.05 * self.n_members, self.n_members * (0.03 + member_mb), 1000, start=4
            ),
            "baselines": Cost(
                0.7 * megarows * config.baselines.n_trees * folds,
                40 * megarows,
                1000 + 10 * table_mb,
            ),
            "stack": Cost(
                harmonic * (config.stack.n_mocks + _CALIBRATION_MOCKS),
                24 * megarows,
                1000 + 6 * table_mb,
                start=1.5,
            ),
            "evaluate": Cost(
                harmonic * (config.evaluate.n_mocks + _CALIBRATION_MOCKS),
                0.9,
                2000 + 10 * table_mb,
                start=3,
            ),
            "summarise": Cost(0, 0.01, 600, start=0.5),
        }
        return costs[stage]

    @property
    def _searches(self) -> int:
        """Number of passes over the table in all searches of sysnet.tune."""
        tune = self.config.tune
        candidates = 4 * (tune.find_structure + tune.find_l1) + tune.find_lr
        return candidates * self.config.split.n_folds * tune.n_epochs

    def _members_of(self, block: str | None) -> int:
        """Return the number of networks of a training job; of all jobs if block is None."""
        if block is None:
            return self.n_members
        size = self.config.train.block_size * self.config.group_size
        return max(min(size, self.n_members - int(block) * size), 0)


def sources(region: Region) -> dict[str, list[str]]:
    """Return the files given by a region, by the inputs of sysnet.tabulate."""
    given = {
        "table": [*region.table, path_of(region.labels)],
        "counts": [path_of(region.counts)],
        "randoms": [path_of(region.randoms)],
        "templates": [found.path for found in region.templates.values()],
        "mask": [path_of(region.mask)],
    }
    return {name: found for name, paths in given.items() if (found := [p for p in paths if p])}


def path_of(found: MapFile | None) -> str:
    """Return the path of a map, or an empty string if there is none."""
    return found.path if found else ""


def check_files(name: str, region: Region) -> None:
    """Raise UsageError if a file given by a region does not exist."""
    for kind, paths in (sources(region) | {"start": region.start}).items():
        for path in paths:
            if not Path(path).is_file():
                raise UsageError(f"sysnet.regions.{name}.{kind}: {path} does not exist")
