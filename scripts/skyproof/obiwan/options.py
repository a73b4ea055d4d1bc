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

_RECORD = "record (.json) of a block of"


def _bands() -> str:
    return inherited("grz", "bands in use, in this order")


def _block_size() -> int:
    return inherited(6, "bricks that one job makes", unit="bricks", ge=1, grain=True)


def _patch_pixels() -> int:
    return inherited(
        0, "side of the sky patches that are groups; 0: a whole brick is one", unit="pixel", ge=0
    )


def _block() -> int:
    return per_job(0, "which block of bricks this job makes", ge=0, grain=True)


class Simulate(SeededOptions):
    """Bricks with known truth: coadds and catalogues in the survey's layout."""

    outputs = {"bricks": File(f"{_RECORD} bricks; their files lie beside it")}

    bands: Bands = _bands()
    block_size: int = _block_size()
    block: int = _block()
    n_bricks: int = option(24, "number of bricks", ge=1)
    brick_pixels: int = option(
        1000, "side of a brick image (a survey's is 3600)", unit="pixel", ge=128
    )
    n_real: int = option(120, "real galaxies a brick", ge=1)
    n_fake: int = option(120, "injected galaxies a brick", ge=1)
    n_stars: int = option(40, "stars a brick", ge=0)
    separation: float = option(5.0, "least distance between injected galaxies", unit="arcsec", ge=0)
    mag_min: float = option(20.7, "brightest g magnitude", unit="mag", ge=14, le=26)
    mag_max: float = option(22.7, "faintest g magnitude", unit="mag", ge=14, le=28)
    radius: float = option(
        1.2, "median half-light radius of galaxies at g = 22", unit="arcsec", ge=0.3, le=3
    )
    count_slope: float = option(0.3, "slope of log10 number counts", unit="dex/mag", ge=0, le=1)
    clump_fraction: float = option(
        0.5, "planted: share of a real galaxy's light in clumps and arms; 0: the classes are alike",
        ge=0, le=0.9,
    )  # fmt: skip
    colour_offset: float = option(
        0.0, "planted: shift of the injected galaxies' g-r", unit="mag", ge=-2, le=2
    )
    depth: float = option(
        24.5, "5-sigma point-source depth of one exposure in g", unit="mag", ge=20, le=28
    )
    seeing: float = option(
        1.2, "median FWHM of the point-spread function in r", unit="arcsec", ge=0.5, le=3
    )


class Ingest(SeededOptions):
    """Real exposures become bricks with injected galaxies, all from one reduction."""

    inputs = {
        "ccds": File("survey-ccds table: one row a CCD image, with zero points"),
        "images": File("folder of community-pipeline images (ooi), weights (oow) and masks (ood)"),
        "calib": File("folder of PSFEx and spline-sky calibrations"),
    }
    outputs = {"bricks": File(f"{_RECORD} bricks; their files lie beside it")}

    bands: Bands = _bands()
    n_fake: int = option(60, "injected galaxies a realisation and brick", ge=1)
    n_realizations: int = option(
        1, "how often the galaxies are injected anew (rs0, rs1, ...)", ge=1
    )
    separation: float = option(5.0, "least distance between injected galaxies", unit="arcsec", ge=0)
    mag_min: float = option(20.7, "brightest injected g magnitude", unit="mag", ge=14, le=26)
    mag_max: float = option(23.5, "faintest injected g magnitude", unit="mag", ge=14, le=28)
    detection_sigma: float = option(
        4.0, "detection threshold above the sky noise", unit="sigma", gt=0
    )
    skip_bad: bool = option(False, "list bricks with bad input in the record and succeed")


class Cutouts(StageOptions):
    """64 x 64 stamps of image and inverse variance of the sources of each class, brick by brick."""

    inputs = {
        "bricks": File("record of bricks, or a text file with one brick name a line"),
        "real": File(
            "survey tree of the real sources; default: the record's folder", optional=True
        ),
        "fake": File("tree with injected sources; default: the record's folder", optional=True),
    }
    outputs = {"cutouts": File(f"{_RECORD} stamps, in real/hdf5/ and fake/hdf5/ beside it")}

    bands: Bands = _bands()
    block_size: int = _block_size()
    block: int = _block()
    real_images: Literal["injected", "release"] = option(
        "injected",
        "injected: real sources are all other sources of the injected image; "
        "release: they come from the release coadds (the original's way)",
    )
    fake_values: Literal["measured", "input"] = option(
        "measured", "positions and values of injected sources: as measured, or as they were put in"
    )
    cut: Literal["both", "real", "none"] = option(
        "both", "classes to which the selection cuts apply (the original: real)"
    )
    colour_pad: float = option(0.5, "padding of the colour box", unit="mag", ge=0, le=2)
    layout: Literal["array", "original"] = option(
        "array", "one array a brick with a table, or the original's group per source"
    )
    jpeg: bool = option(False, "also write 8-bit RGB stamps (jpeg_<bands>.hdf5)")
    skip_bad: bool = option(False, "list bricks with bad input in the record and succeed")


class Assign(SeededOptions):
    """Which brick belongs to the training and which to the test part, and where they share sky."""

    inputs = {"cutouts": File("records of stamps", many=True)}
    outputs = {"membership": File("table (.csv) of groups: part, counts, neighbours")}

    test_fraction: float = option(0.2, "share of the groups in the test part", gt=0, lt=1)
    patch_pixels: int = _patch_pixels()


class Split(SeededOptions):
    """Shuffled float arrays of the training and the test part, in the original's files."""

    inputs = {
        "cutouts": File("record of stamps"),
        "membership": File("table of groups"),
    }
    outputs = {"split": File(f"{_RECORD} arrays, in testtrain/ beside it")}

    bands: Bands = _bands()
    patch_pixels: int = _patch_pixels()
    split_by: Literal["brick", "source"] = option(
        "brick", "what is kept in one part; source: the original's 80/20 inside each brick"
    )
    rows_train: int = option(
        512, "rows of a training file, half of each class", ge=2, multiple_of=2
    )
    rows_test: int = option(128, "rows of a test file, half of each class", ge=2, multiple_of=2)
    dtype: Literal["float32", "float16"] = option(
        "float32", "type of the stored pixels; float16 is half the size and ends at 65504"
    )


class Train(SeededOptions):
    """Train the network on the training part; a killed training resumes where it was."""

    inputs = {
        "split": File("records of arrays", many=True),
        "start": File("checkpoint to go on from", optional=True),
    }
    outputs = {
        "model": File("weights and normalisation (.safetensors)"),
        "history": File("loss and accuracy by step (.csv)"),
    }

    bands: Bands = _bands()
    pool: Literal["code", "table"] = option(
        "code", "average pooling 2x2 as in the original's code, or 7x7 as in its published table"
    )
    n_epochs: int = option(4, "passes over the training part", unit="epochs", ge=1)
    batch: int = option(16, "rows of a step", unit="rows", ge=1)
    micro_batch: int = option(
        8, "rows of the pieces of a batch that ranks share; part of the bits", unit="rows", ge=1
    )
    learning_rate: float = option(1e-3, "Adam's step size at the start", gt=0, le=1)
    schedule: Literal["constant", "cosine"] = option("cosine", "course of the learning rate")
    weight_decay: float = option(0.0, "decoupled weight decay", ge=0, le=1)
    augment: bool = option(True, "random flips and quarter turns of the training stamps")
    checkpoint_every: int = option(100, "steps between two checkpoints", unit="steps", ge=1)
    profile_steps: int = option(3, "steps that the profiler traces; 0: none", unit="steps", ge=0)


class Infer(StageOptions):
    """Score stamps: the probability that a source was injected."""

    inputs = {
        "model": File("trained model (.safetensors)"),
        "split": File("records of arrays; their test part is scored", many=True, optional=True),
        "stamps": File("folder of stamps (.npy or .hdf5) to score instead", optional=True),
    }
    outputs = {"scores": File("table (.parquet), a row a stamp")}

    batch: int = option(64, "rows of a forward pass; the last one is padded", unit="rows", ge=1)


class Evaluate(SeededOptions):
    """The verdict: can the classes be told apart, how well, and by what."""

    inputs = {
        "scores": File("table of scores of the test part"),
        "split": File("records of arrays", many=True),
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

    bands: Bands = _bands()
    patch_pixels: int = _patch_pixels()
    n_bootstrap: int = option(1000, "bootstrap draws over bricks", ge=10)
    n_permutations: int = option(1000, "label shuffles for the p-value", ge=10)
    confidence: float = option(0.95, "confidence of the intervals", gt=0.5, lt=1)
    magnitude_bins: int = option(6, "bins of the accuracy by magnitude", ge=1, le=50)


class Release(Section):
    """Where a real release lies (source: release)."""

    bricks: str = option("bricks.txt", "text file with one brick name a line")
    real: str = option("", "folder of the release: coadd/ and tractor/")
    fake: str = option("", "folder of the injected reductions: coadd/ and obiwan/; empty: as real")


class Exposures(Section):
    """Where real exposures lie (source: ingest)."""

    ccds: str = option("", "survey-ccds table (.fits or .fits.gz)")
    images: str = option("", "folder of the images")
    calib: str = option("", "folder of the calibrations")


class System(Section):
    """Obiwan: can a network tell injected galaxies from real ones?"""

    source: Literal["simulate", "ingest", "release"] = option(
        "simulate", "where bricks come from: made here, real exposures, or a real release"
    )
    bands: Bands = option("grz", "bands in use, in this order")
    block_size: int = option(6, "bricks that one job makes", unit="bricks", ge=1)
    patch_pixels: int = option(
        0, "side of the sky patches that are split; 0: a whole brick is one", unit="pixel", ge=0
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
