"""Options, inputs and outputs of the SYSNet stages. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from skyproof.core.options import (
    File,
    Section,
    SeededOptions,
    StageOptions,
    inherited,
    option,
    per_job,
)
from skyproof.sysnet.regions import Contamination, Form, Range, Region, mock_regions, sound_names

Structure = Annotated[tuple[int, int], pydantic.Field(description="(layers, units)")]

_TABLE = File("SYSNet table (.fits): label, hpix, features, fracgood")
_FOLDS = File("folds (.fits): which part each row is in, for each fold")
_SELECTION = File("features kept (.json)")


class Mock(SeededOptions):
    """Lognormal galaxies times a known contamination by imaging templates."""

    outputs = {
        "table": _TABLE,
        "truth": File("truth of each row (.fits): contamination, galaxy overdensity"),
    }

    contamination: Contamination = per_job(
        "nonlinear", "planted dependence of the density on the templates"
    )
    realisation: int = per_job(0, "which of the mock skies this is", ge=0)
    nside: int = option(32, "HEALPix resolution", ge=16, le=512)
    density: float = option(20.0, "mean galaxies a pixel", ge=0.1, le=1000)
    rms: float = option(0.12, "scatter of the planted contamination", gt=0, le=0.5)
    variance: float = option(0.05, "of the logarithm of the galaxy density", ge=0, le=1)

    @pydantic.field_validator("nside")
    @classmethod
    def _power_of_two(cls, nside: int) -> int:
        if nside & (nside - 1):
            raise ValueError(f"expected a power of 2, got {nside}")
        return nside


class Tabulate(StageOptions):
    """HEALPix maps, or a table of another layout, become the SYSNet table of a part of the sky."""

    inputs = {
        "table": File("table, or table and map, of another layout", many=True, optional=True),
        "counts": File("map of galaxy counts", optional=True),
        "randoms": File("map of randoms: the observed fraction of each pixel", optional=True),
        "templates": File("maps of imaging properties", many=True, optional=True),
        "mask": File("map that is above 0 in the region", optional=True),
    }
    outputs = {"table": _TABLE}

    names: list[str] = per_job([], "names of the templates, in their order")
    forms: dict[str, Form] = per_job({}, "what map files leave open, by template or input")
    nside: int = per_job(0, "HEALPix resolution; 0: that of the counts, or of the table", ge=0)
    ordering: Literal["", "RING", "NESTED"] = per_job("", "of a table that does not say it")
    frame: Literal["", "C", "G", "E"] = per_job("", "of the table; empty: that of the counts")
    randoms_per_pixel: float = per_job(
        0.0, "randoms of a pixel observed in full; 0: the map holds fractions", ge=0
    )
    density_labels: bool = per_job(
        False, "labels are densities: those of a table are multiplied by fracgood"
    )
    ra: Range | None = per_job(None, "right ascension of the region, from west to east")
    dec: Range | None = per_job(None, "declination of the region")
    gal_lat: Range | None = per_job(None, "Galactic latitude of the region")
    min_abs_gal_lat: float = per_job(0.0, "least distance from the Galactic plane", ge=0, lt=90)
    min_fracgood: float = option(0.1, "least observed fraction of a pixel (exclusive)", ge=0, lt=1)


class Split(SeededOptions):
    """Folds: each row is tested by networks that have not seen it, nor its neighbours."""

    inputs = {"table": _TABLE}
    outputs = {"folds": _FOLDS}

    fold_scheme: Literal["spatial", "rows85"] = option(
        "spatial", "spatial: superpixels balanced by count; rows85: the original's random rows"
    )
    n_folds: int = option(5, "number of folds; 1: one 60/20/20 split", ge=1, le=64)
    nside_group: int = option(8, "HEALPix resolution of the superpixels", ge=1, le=64)


class Select(SeededOptions):
    """Which features the networks see: all, a given list, or what elimination keeps."""

    inputs = {"table": _TABLE, "folds": _FOLDS}
    outputs = {"selection": _SELECTION}

    axes: list[int] | Literal["all"] = option("all", "columns of the features in use")
    do_rfe: bool = option(False, "recursive elimination of features by a linear model")
    rfe_tolerance: float = option(
        1.0,
        "excess loss at which fewer features count as good as the best; 0: the least loss",
        unit="standard errors",
        ge=0,
        le=10,
    )


class Network(Section):
    """What search and training of the networks share; a configuration sets it once."""

    model: Literal["dnn", "dnnp", "dnnps", "lin", "linp"] = inherited(
        "dnnp", "dnn: rectified layers; dnnp: and softplus; dnnps: and exp; lin, linp: one layer"
    )
    loss: Literal["mse", "pnll"] = inherited("pnll", "squared error, or Poisson likelihood")
    weighting: Literal["poisson", "original"] = inherited(
        "poisson", "poisson: a row's squared error counts by its fracgood once; original: thrice"
    )
    normalisation: Literal["z-score", "minmax"] = inherited("z-score", "scaling of the features")
    optimiser: Literal["adamw", "adam", "sgd"] = inherited("adamw", "how the weights move")
    scheduler: Literal["cosann", "none"] = inherited(
        "cosann", "cosine annealing with warm restarts, or a constant learning rate"
    )
    batch: int = inherited(512, "rows of a step", unit="rows", ge=2)
    learning_rate: float = inherited(0.01, "step size at the start", gt=0, le=1)
    eta_min: float = inherited(1e-5, "least step size of the cosine", ge=0, le=1)
    structure: Structure = inherited((4, 20), "layers with the output's, and units of each")
    l1_alpha: float = inherited(-1.0, "weight of the first layer's L1 norm; <= 0: off", le=1e3)
    weight_decay: float = inherited(0.0, "decoupled weight decay", ge=0, le=1)
    group_size: int = inherited(
        25, "members trained in one batched ensemble; part of the bits", unit="members", ge=1
    )
    compile: bool = inherited(
        False, "compile the training step (needs a C++ compiler; other bits, several times faster)"
    )


class Tune(Network, SeededOptions):
    """Searches for the learning rate, the structure and the L1 weight."""

    inputs = {"table": _TABLE, "folds": _FOLDS, "selection": _SELECTION}
    outputs = {"tuning": File("values found, and the scans (.json)")}

    find_lr: bool = option(False, "learning-rate range test")
    find_structure: bool = option(False, "search over the number of layers")
    find_l1: bool = option(False, "search over the L1 weight")
    n_epochs: int = option(50, "passes of a search", unit="epochs", ge=1)


class Train(Network, SeededOptions):
    """Train folds x chains as batched ensembles; a killed training resumes where it was."""

    inputs = {
        "table": _TABLE,
        "folds": _FOLDS,
        "selection": _SELECTION,
        "tuning": File("values found by the search (.json)"),
        "start": File("records of members to go on from", many=True, optional=True),
    }
    outputs = {"members": File("record (.json) of a block of members, in members/ beside it")}

    block: int = per_job(0, "which block of groups this job trains", ge=0, grain=True)
    block_size: int = option(1, "groups that one job trains", unit="groups", ge=1, grain=True)
    n_chains: int = option(5, "networks a fold, from different seeds", ge=1)
    n_epochs: int = option(70, "passes over the training part", unit="epochs", ge=1)
    snapshots: bool = option(False, "keep the weights at the end of each cosine cycle as well")
    checkpoint_every: int = option(10, "epochs between two checkpoints", unit="epochs", ge=1)


class Infer(StageOptions):
    """Out-of-fold predictions of every member, in the original's files."""

    inputs = {
        "table": _TABLE,
        "folds": _FOLDS,
        "members": File("records of members", many=True),
    }
    outputs = {
        "weights": File("nn-weights.fits: hpix and a column a chain, rows in order of the folds"),
        "metrics": File("metrics.npz: losses of each fold, chain and epoch; baselines"),
        "history": File("losses by fold, chain and epoch (.csv)"),
        "lines": File("train.log: the lines that the original logs"),
    }

    batch: int = option(4096, "rows of a forward pass; the last one is padded", unit="rows", ge=1)
    sort: bool = option(False, "rows of nn-weights.fits by hpix, instead of fold after fold")


class Export(StageOptions):
    """The members in the original's layout: model_<fold>_<seed>/best.pth.tar, and snapshots."""

    inputs = {"members": File("records of members", many=True)}
    outputs = {"export": File("record (.json) of the files")}

    do_tar: bool = option(False, "also pack all checkpoints into models.tar.gz")


class Baselines(SeededOptions):
    """Out-of-fold predictions of a constant, linear, quadratic and forest model."""

    inputs = {"table": _TABLE, "folds": _FOLDS, "selection": _SELECTION}
    outputs = {"predictions": File("table (.fits): hpix and a column a model, rows as the table")}

    n_trees: int = option(200, "trees of the random forest", ge=1)
    min_leaf: int = option(20, "least rows of a leaf", ge=1)


class Stack(SeededOptions):
    """The selection function: a non-negative mix of all models' out-of-fold predictions."""

    inputs = {
        "table": _TABLE,
        "folds": _FOLDS,
        "features": _SELECTION,
        "baselines": File("out-of-fold predictions of the baselines"),
        "weights": File("out-of-fold predictions of the networks (nn-weights.fits)"),
    }
    outputs = {
        "selection": File("selection.fits: map of mean and standard deviation"),
        "weights": File("weights.fits: hpix and the weight of its galaxies"),
        "stack": File("weights of the mix, fold by fold (.json)"),
    }

    use: Literal["stack", "network", "linear", "quadratic"] = option(
        "stack", "the model that gives the weights"
    )
    forest: bool = option(False, "let the random forest into the mix as well")
    shrink: bool = option(
        True, "draw the mix towards 1 as far as mock skies without contamination show the same"
    )
    n_mocks: int = option(20, "mock skies of that", ge=5)
    clip_low: float = option(0.5, "least selection", gt=0, lt=1)
    clip_high: float = option(2.0, "greatest selection", gt=1)


class Evaluate(SeededOptions):
    """What the weights do to the density, against templates, in harmonic space, against truth."""

    inputs = {
        "table": _TABLE,
        "truth": File("truth of a mock", optional=True),
        "folds": _FOLDS,
        "baselines": File("out-of-fold predictions of the baselines"),
        "network": File("out-of-fold predictions of the networks"),
        "history": File("losses by fold, chain and epoch"),
        "selection": File("selection map"),
        "stack": File("weights of the mix"),
        "tuning": File("values found by the search, and the scans"),
    }
    outputs = {
        "metrics": File("all figures of merit (.json)"),
        "verdict": File("the verdict in words (.md)"),
        "nulltest": File("density against each template, with p-values (.json)"),
        "maps": File("figure: observed, predicted, corrected density (.png)"),
        "templates": File("figure: mean density against each template (.png)"),
        "power": File("figure: angular power before and after (.png)"),
        "curves": File("figure: loss curves (.png)"),
        "scan": File("figure: learning-rate scan (.png)"),
    }

    region: str = per_job("", "name of the region, for titles")
    n_mocks: int = option(200, "mock skies of the null test's covariance", ge=20)
    n_bootstrap: int = option(1000, "resamplings of the superpixels for errors", ge=20)


class Summarise(StageOptions):
    """One verdict and one table over all regions."""

    inputs = {"metrics": File("figures of merit of each region", many=True)}
    outputs = {
        "verdict": File("the verdict in words (.md)"),
        "metrics": File("figures of merit by region (.json)"),
    }


class System(Network):
    """SYSNet: how much of the galaxy density is the imaging's, and the weights that undo it."""

    exports: bool = option(
        False, "write the networks in the original's files as well (target sysnet_export)"
    )
    # Empty in config.yaml: a configuration's own regions would be added to those that stand there.
    regions: dict[str, Region] = option(
        {},
        "parts of the sky, by name, each with its own networks and verdict; "
        "none: two mock skies, one contaminated, one clean",
    )
    mock: Mock = Mock()
    tabulate: Tabulate = Tabulate()
    split: Split = Split()
    select: Select = Select()
    tune: Tune = Tune()
    train: Train = Train()
    infer: Infer = Infer()
    export: Export = Export()
    baselines: Baselines = Baselines()
    stack: Stack = Stack()
    evaluate: Evaluate = Evaluate()
    summarise: Summarise = Summarise()

    @pydantic.field_validator("regions")
    @classmethod
    def _sound_names(cls, regions: dict[str, Region]) -> dict[str, Region]:
        sound_names(regions)
        return regions or mock_regions()
