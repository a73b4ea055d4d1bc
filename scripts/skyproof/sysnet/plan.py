"""What the rules must know before anything runs: which regions, files, jobs, how much of what."""

from __future__ import annotations

from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Any

from skyproof.core.cost import Work
from skyproof.core.errors import UsageError
from skyproof.core.options import as_word, home_of, options_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyproof.sysnet.options import System
    from skyproof.sysnet.regions import MapFile, Region

# A survey's table at nside 256 has some 200,000 rows; maps and tables are not opened to plan.
_SURVEY_ROWS = 400_000
_FEATURES = 20
_PYTHON_MB = 600
# Measured on one core of a laptop, uncompiled: seconds that one network takes for a pass over 10^6
# rows (0.4), with room for a slow machine; mock skies and maps a second.
_SECONDS_PER_MEGAROW = 2.0
_MEGAPIXELS_PER_SECOND = 0.05
# The same without that room, for planning: it tells hours, where a time limit must be kept.
_EXPECTED_SECONDS_PER_MEGAROW = 0.1
_CALIBRATION_MOCKS = 40  # nullmocks.py draws them before those that count


class Plan:
    """The regions of one configured run, their files, and estimates."""

    def __init__(self, config: System) -> None:
        self.config = config
        self.regions = list(config.regions)
        for name, region in config.regions.items():
            check_files(name, region)

    def table(self, wildcards: Any) -> str:
        """The table of a region: made here, or put together from what the region names."""
        made_by = "mock" if self._region(wildcards).source == "mock" else "tabulate"
        return f"results/sysnet/{wildcards.region}/{made_by}/table.fits"

    def truth(self, wildcards: Any) -> list[str]:
        """The truth of a mock region, else nothing."""
        known = self._region(wildcards).source == "mock"
        return [f"results/sysnet/{wildcards.region}/mock/truth.fits"] if known else []

    def sources(self, wildcards: Any) -> dict[str, list[str]]:
        """The files that a region names, by the inputs of sysnet.tabulate."""
        return sources(self._region(wildcards))

    def start(self, wildcards: Any) -> list[str]:
        """Records of members that a region's training goes on from."""
        return self._region(wildcards).start

    @property
    def products(self) -> list[str]:
        """What the run is for; the rest follows from it."""
        exports = [f"results/sysnet/{name}/export/export.json" for name in self.regions]
        return ["results/sysnet/evaluate/verdict.md", *(exports if self.config.exports else [])]

    def job(self, stage: str) -> Any:
        """Return a parameter: words for those options of a stage that the region sets."""
        wanted = [
            name
            for name, field in options_model(stage).model_fields.items()
            if home_of(field) == "job"
        ]

        def words(wildcards: Any) -> str:
            region = self._region(wildcards)
            values = region.model_dump(mode="json")
            values |= {
                "region": wildcards.region,
                "names": region.names or list(region.templates),
                "forms": region.forms,
            }
            found = [name for name in wanted if values.get(name) is not None]
            return join(
                word
                for name in found
                for word in (f"--{name.replace('_', '-')}", as_word(values[name]))
            )

        return words

    def _region(self, wildcards: Any) -> Region:
        return self.config.regions[wildcards.region]

    @property
    def n_groups(self) -> int:
        """Groups of members in a region's training: folds x chains, padded."""
        members = self.config.split.n_folds * self.config.train.n_chains
        return -(-members // self.config.group_size)

    @property
    def train_ranks(self) -> int:
        """Ranks share the groups of a block; more of them than groups would wait."""
        return min(self.config.train.block_size, self.n_groups)

    @property
    def rows(self) -> int:
        """Rows of the largest table, roughly; a mock's are known."""
        mocks = all(region.source == "mock" for region in self.config.regions.values())
        return 12 * self.config.mock.nside**2 if mocks else _SURVEY_ROWS

    @property
    def table_mb(self) -> float:
        return self.rows * (_FEATURES + 4) * 8 / 1e6

    @property
    def table_minutes(self) -> float:
        return 5 + self.rows / 1e6 / _MEGAPIXELS_PER_SECOND / 60

    @property
    def train_mb(self) -> float:
        """Memory of a rank: the table, and some ten copies of the activations of a group's step."""
        layers, units = self.config.structure
        activations = self.config.group_size * self.config.batch * layers * units * 4 * 10 / 1e6
        return _PYTHON_MB + 4 * self.table_mb + activations

    @property
    def train_minutes(self) -> float:
        """Wall time of one group; a block's groups run on a rank each."""
        passes = self.config.group_size * self.config.train.n_epochs
        return 5 + passes * self.rows / 1e6 * _SECONDS_PER_MEGAROW / 60

    @property
    def tune_minutes(self) -> float:
        searches = 5 if self.config.tune.find_structure or self.config.tune.find_l1 else 1
        passes = searches * 10 * self.config.tune.n_epochs
        return 5 + passes * self.rows / 1e6 * _SECONDS_PER_MEGAROW / 60

    @property
    def infer_mb(self) -> float:
        """Memory of a rank: its table, and all predictions (on the first rank)."""
        predictions = self.rows * self.config.train.n_chains * 8 / 1e6
        return _PYTHON_MB + 3 * self.table_mb + 3 * predictions

    @property
    def n_members(self) -> int:
        """Networks of a region."""
        return self.config.split.n_folds * self.config.train.n_chains

    def work(self, stage: str, wildcards: Mapping[str, str]) -> Work:
        """Return what a job of a stage has to do; regions count as equal, blocks as their size.

        Constants are CPU seconds of one core and bytes, of mock skies of nside 32.
        """
        megarows = self.rows / 1e6
        members = self._members_of(wildcards.get("block"))
        groups = -(-members // self.config.group_size)
        chains = self.config.train.n_chains
        harmonic = 0.018 * (self.rows / 12288) ** 1.5  # a mock sky, there and back
        row = 8e-6 * (_FEATURES + 4)  # megabytes
        rows = self.rows
        layers, units = self.config.structure
        weights = layers * units**2 * 4e-6
        jobs = {
            "mock": Work(0.02 * harmonic + 40 * megarows, rows * row, 2),
            "tabulate": Work(20 * megarows, rows * row, 2),
            "split": Work(20 * megarows, rows * (9 + 2 * self.config.split.n_folds) * 1e-6, 1),
            "select": Work(20 * megarows * self.config.select.do_rfe, 0.001, 0.5),
            "tune": Work(self._searches * megarows * _EXPECTED_SECONDS_PER_MEGAROW, 0.01, 3.5),
            "train": Work(
                members * self.config.train.n_epochs * megarows * _EXPECTED_SECONDS_PER_MEGAROW,
                members * (0.015 + 3 * weights),
                3.5,
                max(groups, 1),
            ),
            "infer": Work(
                self.n_members * megarows * _EXPECTED_SECONDS_PER_MEGAROW,
                rows * 8e-6 * (1 + chains),
                3.5,
                self.n_members,
            ),
            "export": Work(0.05 * self.n_members, self.n_members * (0.03 + 3 * weights), 4),
            "baselines": Work(
                0.7 * megarows * self.config.baselines.n_trees * self.config.split.n_folds,
                rows * 40e-6,
                2,
            ),
            "stack": Work(
                harmonic * (self.config.stack.n_mocks + _CALIBRATION_MOCKS), rows * 24e-6, 1.5
            ),
            "evaluate": Work(
                harmonic * (self.config.evaluate.n_mocks + _CALIBRATION_MOCKS), 0.9, 3
            ),
            "summarise": Work(0, 0.01, 0.5),
        }
        return jobs[stage]

    @property
    def megabytes(self) -> float:
        """All products of all regions."""
        stages = ("mock", "split", "train", "infer", "export", "baselines", "stack", "evaluate")
        return len(self.regions) * sum(self.work(stage, {}).megabytes for stage in stages)

    @property
    def _searches(self) -> int:
        """Passes of all searches of sysnet.tune over the table."""
        tune = self.config.tune
        candidates = 4 * (tune.find_structure + tune.find_l1) + tune.find_lr
        return candidates * self.config.split.n_folds * tune.n_epochs

    def _members_of(self, block: str | None) -> int:
        """Return the networks that a training job makes; all where no block is given."""
        if block is None:
            return self.n_members
        size = self.config.train.block_size * self.config.group_size
        return max(min(size, self.n_members - int(block) * size), 0)


def sources(region: Region) -> dict[str, list[str]]:
    """Return the files that a region names, by the inputs of sysnet.tabulate."""
    given = {
        "table": [*region.table, path_of(region.labels)],
        "counts": [path_of(region.counts)],
        "randoms": [path_of(region.randoms)],
        "templates": [found.path for found in region.templates.values()],
        "mask": [path_of(region.mask)],
    }
    return {name: found for name, paths in given.items() if (found := [p for p in paths if p])}


def path_of(found: MapFile | None) -> str:
    """Return the path of a map, empty where there is none."""
    return found.path if found else ""


def check_files(name: str, region: Region) -> None:
    """Refuse (UsageError) a region that names a file which is not there."""
    for kind, paths in (sources(region) | {"start": region.start}).items():
        for path in paths:
            if not Path(path).is_file():
                raise UsageError(f"sysnet.regions.{name}.{kind}: {path} does not exist")


def words(inputs: Any) -> str:
    """Return the named files of a rule's input as words of the command line, quoted."""
    return " ".join(
        f"{name}={quote(str(path))}"
        for name, paths in inputs.items()
        for path in ([paths] if isinstance(paths, str) else paths)
    )
