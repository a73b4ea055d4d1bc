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
from skyproof.sysnet.regions import (
    Contamination,
    GivenForm,
    Range,
    Region,
    check_region_names,
    mock_regions,
)

Structure = Annotated[tuple[int, int], pydantic.Field(description="(layers, units)")]

_TABLE = File("SYSNet table (.fits): label, hpix, features, fracgood")
_FOLDS = File("folds (.fits): the part of each row in each fold")
_SELECTION = File("selected features (.json)")


class Mock(SeededOptions):
    """Simulate lognormal galaxies with a known contamination by imaging templates."""

    outputs = {
        "table": _TABLE,
        "truth": File("truth per row (.fits): contamination, galaxy overdensity"),
    }

    contamination: Contamination = per_job(
        "nonlinear", "planted dependence of the density on the templates"
    )
    realisation: int = per_job(0, "number of the mock sky", ge=0)
    nside: int = option(32, "HEALPix nside", ge=16, le=512)
    density: float = option(20.0, "mean number of galaxies per pixel", ge=0.1, le=1000)
    rms: float = option(0.12, "rms of the planted contamination", gt=0, le=0.5)
    variance: float = option(0.05, "variance of the logarithm of the galaxy density", ge=0, le=1)

    @pydantic.field_validator("nside")
    @classmethod
    def _power_of_two(cls, nside: int) -> int:
        if nside & (nside - 1):
            raise ValueError(f"expected a power of 2, got {nside}")
        return nside


class Tabulate(StageOptions):
    """Make the SYSNet table of a region from HEALPix maps or from a table of another layout."""

    inputs = {
        "table": File("table, or table and map, of another layout", many=True, optional=True),
        "counts": File("map of galaxy counts", optional=True),
        "randoms": File("map of randoms: the observed fraction of each pixel", optional=True),
        "templates": File("maps of imaging properties", many=True, optional=True),
        "mask": File("map, positive inside the region", optional=True),
    }
    outputs = {"table": _TABLE}
    parallel = False

    names: list[str] = per_job([], "names of the templates, in order")
    forms: dict[str, GivenForm] = per_job(
        {}, "properties missing from map files, by template or input"
    )
    nside: int = per_job(0, "HEALPix nside; 0: that of the counts, or of the table", ge=0)
    ordering: Literal["", "RING", "NESTED"] = per_job(
        "", "pixel ordering of the table; empty: as in its header"
    )
    frame: Literal["", "C", "G", "E"] = per_job(
        "", "coordinates of the table; empty: those of the counts"
    )
    randoms_per_pixel: float = per_job(
        0.0, "randoms per fully observed pixel; 0: the map holds fractions", ge=0
    )
    density_labels: bool = per_job(
        False, "labels are densities; those of a table are multiplied by fracgood"
    )
    ra: Range | None = per_job(None, "right ascension of the region, from west to east")
    dec: Range | None = per_job(None, "declination of the region")
    gal_lat: Range | None = per_job(None, "Galactic latitude of the region")
    min_abs_gal_lat: float = per_job(0.0, "minimum absolute Galactic latitude", ge=0, lt=90)
    min_fracgood: float = option(
        0.1, "minimum observed fraction of a pixel (exclusive)", ge=0, lt=1
    )


class Split(SeededOptions):
    """Assign rows to folds, so that networks are tested on sky that they were not trained on."""

    inputs = {"table": _TABLE}
    outputs = {"folds": _FOLDS}
    parallel = False

    fold_scheme: Literal["spatial", "rows85"] = option(
        "spatial",
        "spatial: whole superpixels, balanced by count; rows85: random rows, as the original",
    )
    n_folds: int = option(5, "number of folds; 1: one 60/20/20 split", ge=1, le=64)
    nside_group: int = option(8, "HEALPix nside of the superpixels", ge=1, le=64)


class Select(SeededOptions):
    """Select features: all, a given list, or the result of recursive elimination."""

    inputs = {"table": _TABLE, "folds": _FOLDS}
    outputs = {"selection": _SELECTION}
    parallel = False

    axes: list[int] | Literal["all"] = option("all", "columns of the selected features")
    do_rfe: bool = option(False, "recursive feature elimination with a linear model")
    rfe_tolerance: float = option(
        1.0,
        "excess loss up to which fewer features are preferred; 0: minimum loss",
        unit="standard errors",
        ge=0,
        le=10,
    )


class Network(Section):
    """Options shared by the searches and the training of the networks."""

    model: Literal["dnn", "dnnp", "dnnps", "lin", "linp"] = inherited(
        "dnnp",
        "dnn: ReLU layers; dnnp: and softplus; dnnps: and exp; lin: one layer; linp: and softplus",
    )
    loss: Literal["mse", "pnll"] = inherited(
        "pnll", "squared error, or Poisson negative log-likelihood"
    )
    weighting: Literal["poisson", "original"] = inherited(
        "poisson", "power of fracgood in the squared error: 1 (poisson), 3 (original)"
    )
    normalisation: Literal["z-score", "minmax"] = inherited(
        "z-score", "normalisation of the features"
    )
    optimiser: Literal["adamw", "adam", "sgd"] = inherited("adamw", "optimiser")
    scheduler: Literal["cosann", "none"] = inherited(
        "cosann", "cosine annealing with warm restarts, or a constant learning rate"
    )
    batch: int = inherited(512, "batch size", unit="rows", ge=2)
    learning_rate: float = inherited(0.01, "initial learning rate", gt=0, le=1)
    eta_min: float = inherited(1e-5, "minimum learning rate of the cosine annealing", ge=0, le=1)
    structure: Structure = inherited(
        (4, 20), "number of layers, output included, and units per layer"
    )
    l1_alpha: float = inherited(-1.0, "weight of the first layer's L1 norm; <= 0: none", le=1e3)
    weight_decay: float = inherited(0.0, "decoupled weight decay", ge=0, le=1)
    group_size: int = inherited(
        25, "networks trained as one batched ensemble; changes the result", unit="members", ge=1
    )
    compile: bool = inherited(
        False, "compile the training step; needs a C++ compiler, changes the result"
    )


class Tune(Network, SeededOptions):
    """Search for the learning rate, the structure and the L1 weight."""

    inputs = {"table": _TABLE, "folds": _FOLDS, "selection": _SELECTION}
    outputs = {"tuning": File("values found, and the scans (.json)")}
    parallel = False

    find_lr: bool = option(False, "learning-rate range test")
    find_structure: bool = option(False, "search over the number of layers")
    find_l1: bool = option(False, "search over the L1 weight")
    n_epochs: int = option(50, "passes over the training part in a search", unit="epochs", ge=1)


class Train(Network, SeededOptions):
    """Train folds x chains as batched ensembles; resume from the last checkpoint after a kill."""

    inputs = {
        "table": _TABLE,
        "folds": _FOLDS,
        "selection": _SELECTION,
        "tuning": File("values found by the search (.json)"),
        "start": File("block indexes of networks to start from", many=True, optional=True),
    }
    outputs = {"members": File("block index (.json) of networks, in members/ of the same folder")}

    block: int = per_job(
        0, "number of the block of groups that this job trains", ge=0, affects_results=False
    )
    block_size: int = option(
        1, "groups of networks per job", unit="groups", ge=1, affects_results=False
    )
    n_chains: int = option(5, "networks per fold, from different seeds", ge=1)
    n_epochs: int = option(70, "passes over the training part", unit="epochs", ge=1)
    snapshots: bool = option(False, "also keep the weights at the end of each cosine cycle")
    checkpoint_every: int = option(10, "epochs between two checkpoints", unit="epochs", ge=1)


class Infer(StageOptions):
    """Predict each fold with the networks not trained on it, in the original's files."""

    inputs = {
        "table": _TABLE,
        "folds": _FOLDS,
        "members": File("block indexes of networks", many=True),
    }
    outputs = {
        "weights": File("nn-weights.fits: hpix and a column per chain, rows in order of the folds"),
        "metrics": File("metrics.npz: losses of each fold, chain and epoch; baselines"),
        "history": File("losses by fold, chain and epoch (.csv)"),
        "lines": File("train.log: the original's log lines"),
    }

    batch: int = option(4096, "rows per forward pass; the last one is padded", unit="rows", ge=1)
    sort: bool = option(False, "order the rows of nn-weights.fits by hpix instead of by fold")


class Export(StageOptions):
    """Write the networks in the original's layout: model_<fold>_<seed>/best.pth.tar, snapshots."""

    inputs = {"members": File("block indexes of networks", many=True)}
    outputs = {"export": File("block index (.json) of the files")}

    do_tar: bool = option(False, "also pack all checkpoints into models.tar.gz")


class Baselines(SeededOptions):
    """Predict out of fold with a constant, a linear, a quadratic and a random-forest model."""

    inputs = {"table": _TABLE, "folds": _FOLDS, "selection": _SELECTION}
    outputs = {"predictions": File("table (.fits): hpix and a column per model, rows as the table")}
    parallel = False

    n_trees: int = option(200, "number of trees of the random forest", ge=1)
    min_leaf: int = option(20, "minimum rows per leaf", ge=1)


class Stack(SeededOptions):
    """Stack the out-of-fold predictions of all models into the selection function."""

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
        "stack": File("coefficients of the stack, by fold (.json)"),
    }
    parallel = False

    use: Literal["stack", "network", "linear", "quadratic"] = option(
        "stack", "model that gives the selection function"
    )
    forest: bool = option(False, "include the random forest in the stack")
    shrink: bool = option(
        True,
        "shrink the selection function towards 1 by the variance found on uncontaminated mocks",
    )
    n_mocks: int = option(20, "mock skies of the shrinkage", ge=5)
    clip_low: float = option(0.5, "lower limit of the selection function", gt=0, lt=1)
    clip_high: float = option(2.0, "upper limit of the selection function", gt=1)


class Evaluate(SeededOptions):
    """Test the weights against the templates, in harmonic space, and against the truth of mocks."""

    inputs = {
        "table": _TABLE,
        "truth": File("truth of a mock", optional=True),
        "folds": _FOLDS,
        "baselines": File("out-of-fold predictions of the baselines"),
        "network": File("out-of-fold predictions of the networks"),
        "history": File("losses by fold, chain and epoch"),
        "selection": File("selection map"),
        "stack": File("coefficients of the stack"),
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
    parallel = False

    region: str = per_job("", "name of the region, for titles")
    n_mocks: int = option(200, "mock skies of the null test's covariance", ge=20)
    n_bootstrap: int = option(1000, "bootstrap samples of superpixels for errors", ge=20)


class Summarise(StageOptions):
    """Summarise the verdicts of all regions on one page."""

    inputs = {"metrics": File("figures of merit of each region", many=True)}
    outputs = {
        "verdict": File("the verdict in words (.md)"),
        "metrics": File("figures of merit by region (.json)"),
    }
    parallel = False


class System(Network):
    """SYSNet: how imaging conditions modulate the galaxy density, and weights that correct it."""

    exports: bool = option(
        False,
        "also write the networks in the original's files in every run (target sysnet_exports)",
    )
    # Empty in config.yaml: Snakemake would merge a user's regions with those listed there.
    regions: dict[str, Region] = option(
        {},
        "regions of the sky by name, each with its own networks and verdict; "
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
    def _check_region_names(cls, regions: dict[str, Region]) -> dict[str, Region]:
        check_region_names(regions)
        return regions or mock_regions()
