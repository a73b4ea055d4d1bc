"""Options, inputs and outputs of the Obiwan stages. Imports nothing heavy."""

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

Bands = Annotated[str, pydantic.StringConstraints(pattern=r"^g?r?i?z?$", min_length=1)]

_INDEX = "block index (.json) of"


def _bands() -> str:
    return inherited("grz", "photometric bands, in this order")


def _block_size() -> int:
    return inherited(6, "bricks per job", unit="bricks", ge=1, affects_results=False)


def _patch_pixels() -> int:
    return inherited(
        0,
        "side of the sky patches that are kept whole in the split; 0: whole bricks",
        unit="pixel",
        ge=0,
    )


def _block() -> int:
    return per_job(
        0, "number of the block of bricks that this job processes", ge=0, affects_results=False
    )


class Simulate(SeededOptions):
    """Simulate bricks of known truth: coadds and catalogues in the survey's layout."""

    outputs = {"bricks": File(f"{_INDEX} bricks; their files are in the same folder")}

    bands: Bands = _bands()
    block_size: int = _block_size()
    block: int = _block()
    n_bricks: int = option(24, "number of bricks", ge=1)
    brick_pixels: int = option(
        1000, "side of a brick image (3600 in the Legacy Surveys)", unit="pixel", ge=128
    )
    n_real: int = option(120, "real galaxies per brick", ge=1)
    n_fake: int = option(120, "injected galaxies per brick", ge=1)
    n_stars: int = option(40, "stars per brick", ge=0)
    separation: float = option(5.0, "minimum separation of injected galaxies", unit="arcsec", ge=0)
    mag_min: float = option(20.7, "brightest g magnitude", unit="mag", ge=14, le=26)
    mag_max: float = option(22.7, "faintest g magnitude", unit="mag", ge=14, le=28)
    radius: float = option(
        1.2, "median half-light radius of galaxies at g = 22", unit="arcsec", ge=0.3, le=3
    )
    count_slope: float = option(0.3, "slope of log10 number counts", unit="dex/mag", ge=0, le=1)
    clump_fraction: float = option(
        0.5, "planted difference: fraction of a real galaxy's light in clumps and arms; 0: none",
        ge=0, le=0.9,
    )  # fmt: skip
    colour_offset: float = option(
        0.0,
        "planted difference: offset of the injected galaxies' g-r; 0: none",
        unit="mag",
        ge=-2,
        le=2,
    )
    depth: float = option(
        24.5, "5-sigma point-source depth of one exposure in g", unit="mag", ge=20, le=28
    )
    seeing: float = option(
        1.2, "median FWHM of the point-spread function in r", unit="arcsec", ge=0.5, le=3
    )


class Ingest(SeededOptions):
    """Inject galaxies into real exposures and reduce them to bricks."""

    inputs = {
        "ccds": File("survey-ccds table: a row for each CCD image, with zero points"),
        "images": File("folder of community-pipeline images (ooi), weights (oow) and masks (ood)"),
        "calib": File("folder of PSFEx and spline-sky calibrations"),
    }
    outputs = {"bricks": File(f"{_INDEX} bricks; their files are in the same folder")}

    bands: Bands = _bands()
    n_fake: int = option(60, "injected galaxies per realisation and brick", ge=1)
    n_realizations: int = option(1, "number of injection realisations (rs0, rs1, ...)", ge=1)
    separation: float = option(5.0, "minimum separation of injected galaxies", unit="arcsec", ge=0)
    mag_min: float = option(20.7, "brightest injected g magnitude", unit="mag", ge=14, le=26)
    mag_max: float = option(23.5, "faintest injected g magnitude", unit="mag", ge=14, le=28)
    detection_sigma: float = option(
        4.0, "detection threshold above the sky noise", unit="sigma", gt=0
    )
    skip_bad: bool = option(
        False, "list bricks with bad input in the block index and go on, instead of failing"
    )


class Cutouts(StageOptions):
    """Cut stamps of 64 x 64 pixels (image, inverse variance) around the sources of each class."""

    inputs = {
        "bricks": File("block index of bricks, or a text file with one brick name per line"),
        "real": File(
            "survey folder of the real sources; default: that of the block index", optional=True
        ),
        "fake": File(
            "folder with injected sources; default: that of the block index", optional=True
        ),
    }
    outputs = {"cutouts": File(f"{_INDEX} stamps, in real/hdf5/ and fake/hdf5/ of the same folder")}

    bands: Bands = _bands()
    block_size: int = _block_size()
    block: int = _block()
    real_images: Literal["injected", "release"] = option(
        "injected",
        "source of the real stamps: the image with injected galaxies (injected), "
        "or the release coadds (release, as the original)",
    )
    fake_values: Literal["measured", "input"] = option(
        "measured", "positions and values of injected sources: as measured, or as injected"
    )
    cut: Literal["both", "real", "none"] = option(
        "both", "classes to which the selection cuts are applied (the original: real)"
    )
    colour_pad: float = option(
        0.5, "margin added to the colour box of the selection", unit="mag", ge=0, le=2
    )
    layout: Literal["array", "original"] = option(
        "array", "one array and one table per brick, or the original's group per source"
    )
    jpeg: bool = option(False, "also write 8-bit RGB stamps (jpeg_<bands>.hdf5)")
    skip_bad: bool = option(
        False, "list bricks with bad input in the block index and go on, instead of failing"
    )


class Assign(SeededOptions):
    """Assign bricks to the training and test part, and list where the parts share sky."""

    inputs = {"cutouts": File("block indexes of stamps", many=True)}
    outputs = {"membership": File("table (.csv) of groups: part, counts, overlaps")}
    parallel = False

    test_fraction: float = option(0.2, "fraction of the groups in the test part", gt=0, lt=1)
    patch_pixels: int = _patch_pixels()


class Split(SeededOptions):
    """Write shuffled arrays of the training and test part in the original's file layout."""

    inputs = {
        "cutouts": File("block index of stamps"),
        "membership": File("table (.csv) of groups"),
    }
    outputs = {"split": File(f"{_INDEX} arrays, in testtrain/ of the same folder")}

    bands: Bands = _bands()
    patch_pixels: int = _patch_pixels()
    split_by: Literal["brick", "source"] = option(
        "brick", "unit of the split; source: 80/20 within each brick, as the original"
    )
    rows_train: int = option(
        512, "rows of a training file, half from each class", ge=2, multiple_of=2
    )
    rows_test: int = option(128, "rows of a test file, half from each class", ge=2, multiple_of=2)
    dtype: Literal["float32", "float16"] = option(
        "float32", "type of the stored pixels; float16 halves the size, its largest value is 65504"
    )


class Train(SeededOptions):
    """Train the network on the training part; resume from the last checkpoint after a kill."""

    inputs = {
        "split": File("block indexes of arrays", many=True),
        "start": File("checkpoint to start from", optional=True),
    }
    outputs = {
        "model": File("weights and normalisation (.safetensors)"),
        "history": File("loss and accuracy per step (.csv)"),
    }

    bands: Bands = _bands()
    pool: Literal["code", "table"] = option(
        "code", "average pooling: 2x2 as in the original's code, or 7x7 as in its published table"
    )
    n_epochs: int = option(4, "passes over the training part", unit="epochs", ge=1)
    batch: int = option(16, "batch size", unit="rows", ge=1)
    micro_batch: int = option(
        8, "rows per micro-batch, the unit that ranks share; changes the result", unit="rows", ge=1
    )
    learning_rate: float = option(1e-3, "initial learning rate (AdamW)", gt=0, le=1)
    schedule: Literal["constant", "cosine"] = option("cosine", "learning-rate schedule")
    weight_decay: float = option(0.0, "decoupled weight decay", ge=0, le=1)
    augment: bool = option(True, "random flips and 90-degree rotations of the training stamps")
    checkpoint_every: int = option(100, "steps between two checkpoints", unit="steps", ge=1)
    profile_steps: int = option(3, "steps recorded by the profiler; 0: none", unit="steps", ge=0)


class Infer(StageOptions):
    """Score stamps: the probability that a source was injected."""

    inputs = {
        "model": File("trained model (.safetensors)"),
        "split": File("block indexes of arrays; the test part is scored", many=True, optional=True),
        "stamps": File("folder of stamps (.npy or .hdf5) to score instead", optional=True),
    }
    outputs = {"scores": File("table (.parquet), a row per stamp")}

    batch: int = option(64, "rows per forward pass; the last one is padded", unit="rows", ge=1)


class Evaluate(SeededOptions):
    """Test whether the classes differ, how much, and in which quantities."""

    inputs = {
        "scores": File("table of scores of the test part"),
        "split": File("block indexes of arrays", many=True),
        "history": File("loss and accuracy by step"),
    }
    outputs = {
        "metrics": File("all figures of merit (.json)"),
        "verdict": File("the verdict in words (.md)"),
        "mosaic": File("figure: real and injected galaxies with their scores (.png)"),
        "roc": File("figure: receiver operating characteristic (.png)"),
        "magnitude": File("figure: accuracy by magnitude (.png)"),
        "curves": File("figure: training curves (.png)"),
    }
    parallel = False

    bands: Bands = _bands()
    patch_pixels: int = _patch_pixels()
    n_bootstrap: int = option(1000, "bootstrap samples of bricks", ge=10)
    n_permutations: int = option(1000, "label permutations for the p-value", ge=10)
    confidence: float = option(0.95, "confidence level of the intervals", gt=0.5, lt=1)
    magnitude_bins: int = option(6, "magnitude bins of the accuracy", ge=1, le=50)


class Release(Section):
    """Paths of a survey release (source: release)."""

    bricks: str = option("bricks.txt", "text file with one brick name per line")
    real: str = option("", "folder of the release: coadd/ and tractor/")
    fake: str = option(
        "", "folder of the reductions with injected galaxies: coadd/ and obiwan/; empty: as real"
    )


class Exposures(Section):
    """Paths of real exposures (source: ingest)."""

    ccds: str = option("", "survey-ccds table (.fits or .fits.gz)")
    images: str = option("", "folder of the images")
    calib: str = option("", "folder of the calibrations")


class System(Section):
    """Obiwan: can a network tell injected galaxies from real ones?"""

    source: Literal["simulate", "ingest", "release"] = option(
        "simulate", "source of the bricks: simulated, from real exposures, or a survey release"
    )
    bands: Bands = option("grz", "photometric bands, in this order")
    block_size: int = option(6, "bricks per job", unit="bricks", ge=1)
    patch_pixels: int = option(
        0,
        "side of the sky patches that are kept whole in the split; 0: whole bricks",
        unit="pixel",
        ge=0,
    )
    release: Release = Release()
    exposures: Exposures = Exposures()
    simulate: Simulate = Simulate()
    ingest: Ingest = Ingest()
    cutouts: Cutouts = Cutouts()
    assign: Assign = Assign()
    split: Split = Split()
    train: Train = Train()
    infer: Infer = Infer()
    evaluate: Evaluate = Evaluate()
