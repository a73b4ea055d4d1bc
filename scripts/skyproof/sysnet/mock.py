"""Stage sysnet.mock: lognormal galaxies with a known contamination by imaging templates.

Counts are Poisson with mean density * fracgood * F(templates) * (1 + delta) (see the mocks of
Rezaie et al. 2020, arXiv:1907.11355, section 3). F depends on five of the 18 templates. Random
streams have one key per field or block of pixels: the result does not depend on the number of
ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from skyproof.core.comm import Comm, SerialComm, on_first_rank, share
from skyproof.core.formats import write as writers
from skyproof.core.seeds import Stream
from skyproof.core.seeds import stream as seeded_stream
from skyproof.sysnet.mocks.fields import gaussian_field
from skyproof.sysnet.mocks.imaging import NAMES, Imaging, draw_imaging
from skyproof.sysnet.table import Table, check_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Mock

ACTIVE = ("ebv", "n_star", "depth_g", "seeing_r", "sky_z")

_BLOCK_ROWS = 1 << 14  # pixels of the sky per random stream
_PIVOT, _SLOPE = 30.0, 1.2  # of the power spectrum of the Gaussian field
_LEAST = 0.05  # minimum of the contamination before normalisation


@dataclass(frozen=True)
class Survey:
    """What all mock skies of one survey share. Rows [n] are those of the table."""

    imaging: Imaging
    fracgood: np.ndarray
    contamination: np.ndarray  # F, mean 1


@dataclass(frozen=True)
class Galaxies:
    """One mock sky: overdensity, expected counts and drawn counts, each [n]."""

    delta: np.ndarray
    expected: np.ndarray
    counts: np.ndarray


def run(inputs: SimpleNamespace, outputs: SimpleNamespace, options: Mock, context: Context) -> None:
    """Simulate one mock sky and write its table and truth."""
    survey = make_survey(options, context.stream, context.comm)
    galaxies = draw_galaxies(survey, options, context.stream, context.comm)

    def write() -> None:
        table = as_table(survey, galaxies)
        check_table(outputs.table, table)
        write_table(outputs.table, table)
        write_truth(outputs.truth, survey, galaxies, options)

    on_first_rank(context.comm, write)
    context.log.info(
        "%d pixels, %d galaxies, contamination %s of rms %.3f", len(galaxies.counts),
        galaxies.counts.sum(), options.contamination, survey.contamination.std(),
    )  # fmt: skip


def make_mock(options: Mock) -> tuple[Table, Survey, Galaxies]:
    """Simulate the stage's mock sky in memory.

    For many skies of one survey, call `make_survey` once and `draw_galaxies` for each realisation.
    """

    def stream(*names: object) -> np.random.Generator:
        return seeded_stream(options.seed, "sysnet.mock", *names)

    survey = make_survey(options, stream)
    galaxies = draw_galaxies(survey, options, stream)
    return as_table(survey, galaxies), survey, galaxies


def make_survey(options: Mock, stream: Stream, comm: Comm | None = None) -> Survey:
    """Draw templates and observed fractions, and compute the contamination."""
    comm = comm or SerialComm()
    imaging = draw_imaging(options.nside, stream, comm)
    factor = contamination(imaging.templates, options.contamination, options.rms)
    fracgood = np.concatenate([
        stream("fracgood", block).beta(20, 1, len(rows)) for block, rows in blocks(imaging.hpix)
    ])  # fmt: skip
    return Survey(imaging, fracgood, factor)


def blocks(hpix: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (block, rows) of each block of pixels that contains part of the footprint."""
    number = hpix // _BLOCK_ROWS
    return [(int(block), np.flatnonzero(number == block)) for block in np.unique(number)]


def contamination(templates: np.ndarray, kind: str, rms: float) -> np.ndarray:
    """Return F [n] from the templates [n, 18], with mean 1 and the given rms before the floor.

    linear: 1 + a.t; quadratic: plus squares and products; nonlinear: the product of an exponential
    of dust, sigmoids of depth and stellar density, a tanh step in sky brightness, and a cosine of
    seeing.
    """
    if kind == "none":
        return np.ones(len(templates))
    raw = templates[:, [NAMES.index(name) for name in ACTIVE]]
    t = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    dust, stars, depth, seeing, sky = t.T
    line = -0.6 * dust - 0.5 * stars + 0.6 * depth - 0.5 * seeing + 0.5 * sky
    if kind == "linear":
        shape = line
    elif kind == "quadratic":
        shape = line + 0.4 * stars**2 - 0.5 * depth**2 + 0.5 * depth * seeing - 0.3 * dust * sky
    else:
        shape = (
            np.exp(-raw[:, 0] / 0.12)
            / (1 + np.exp(-6 * (depth + 0.5)))
            / (1 + np.exp(8 * (stars - 0.3)))
            * (1 + 0.5 * np.cos(2.5 * seeing))
            * (1 + 0.2 * np.tanh(4 * sky))
        )
    factor = 1 + rms * (shape - shape.mean()) / shape.std()
    factor = np.maximum(factor, _LEAST)
    return factor / factor.mean()


def field_power(nside: int, variance: float) -> np.ndarray:
    """Return C_l [3 nside] ~ (l/30)^-1.2 for l >= 2, damped at the pixel scale (spec 1.10)."""
    l = np.arange(3 * nside)  # noqa: E741
    power = np.where(l >= 2, (np.maximum(l, 2) / _PIVOT) ** -_SLOPE, 0)
    power = power * np.exp(-((l / (2 * nside)) ** 2))
    return power * variance / (((2 * l + 1) * power).sum() / (4 * np.pi))


def draw_galaxies(
    survey: Survey, options: Mock, stream: Stream, comm: Comm | None = None
) -> Galaxies:
    """Draw the sky of `options.realisation`; the ranks share the blocks of pixels.

    delta = exp(g - s^2 / 2) - 1, with a Gaussian field g of variance s^2 (A22).
    """
    comm = comm or SerialComm()
    sky = options.realisation
    delta = None
    if comm.rank == 0:
        power = field_power(options.nside, options.variance)
        field = gaussian_field(power, options.nside, stream("galaxies", sky))
        delta = np.expm1(field[survey.imaging.hpix] - options.variance / 2)
    delta = comm.bcast(delta)
    assert delta is not None
    expected = options.density * survey.fracgood * survey.contamination * (1 + delta)
    drawn = {
        block: stream("counts", sky, block).poisson(expected[rows])
        for block, rows in share(blocks(survey.imaging.hpix), comm)
    }
    parts = comm.allgather(drawn)
    found = {block: counts for part in parts for block, counts in part.items()}
    counts = np.concatenate([found[block] for block in sorted(found)])
    return Galaxies(delta, expected, counts)


def as_table(survey: Survey, galaxies: Galaxies) -> Table:
    """Return the table of a mock sky."""
    return Table(
        hpix=survey.imaging.hpix.astype("i8"),
        label=galaxies.counts.astype("f8"),
        fracgood=survey.fracgood,
        features=survey.imaging.templates,
        names=NAMES,
        nside=survey.imaging.nside,
    )


def write_truth(path: str | Path, survey: Survey, galaxies: Galaxies, options: Mock) -> None:
    """Write the truth of each row, no input of any model: contamination, delta, expected counts."""
    acting = ACTIVE if options.contamination != "none" else ()
    columns = {
        "hpix": survey.imaging.hpix.astype("i8"),
        "contamination": survey.contamination,
        "delta": galaxies.delta,
        "expected": galaxies.expected,
    }
    header = {
        "NSIDE": options.nside, "ORDERING": "RING", "COORDSYS": "C",
        "CONTAM": options.contamination, "DENSITY": options.density, "VARIANCE": options.variance,
        "NACTIVE": len(acting), **{f"ACTIVE{i}": name for i, name in enumerate(acting)},
    }  # fmt: skip
    writers.fits_table(path, columns, extname="TRUTH", header=header)
