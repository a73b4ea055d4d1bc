"""The cuts on sources, each at its boundary."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skyproof.obiwan import survey
from skyproof.obiwan.catalogue.selection import (
    Limits,
    corrected_magnitudes,
    half_light_radius,
    select_all,
    select_input,
    select_measured,
)

TRANSMISSION = 0.9
EPS = 1e-4  # mag; fluxes are float32, which keeps about 1e-7 of them
# Colours at r-z = 0.9 and 0.5: where the two padded lines stand (pad 0.5 mag).
BLUE = 1.15 * (0.5 + 0.5 * math.sin(math.atan(1.15))) - 0.15 + 0.5 * math.cos(math.atan(1.15))
RED = -1.2 * (0.9 - 0.5 * math.sin(math.atan(1.2))) + 1.6 + 0.5 * math.cos(math.atan(1.2))


def source(g: float = 22.3, r: float = 21.9, z: float = 21.2, **changes: object) -> dict:
    """One row of a catalogue with extinction-corrected magnitudes; `changes` replace columns."""
    row: dict[str, object] = {"type": "EXP", "brick_primary": True}
    row |= {"shapeexp_r": np.float32(0.5), "shapedev_r": np.float32(0)}
    for band, mag in zip("grz", (g, r, z), strict=True):
        row[f"flux_{band}"] = np.float32(10 ** (0.4 * (22.5 - mag)) * TRANSMISSION)
        row[f"flux_ivar_{band}"] = np.float32(100)
        row[f"mw_transmission_{band}"] = np.float32(TRANSMISSION)
        row[f"nobs_{band}"] = np.int16(1)
        row[f"psfsize_{band}"] = np.float32(1.2)
    return row | changes


def columns(*rows: dict) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


TRUTH = [  # name, source, the cut that removes it ("" where it is kept)
    ("typical", source(), ""),
    ("below the blue line", source(21.8 + BLUE - EPS, 21.8, 21.3), ""),
    ("above the blue line", source(21.8 + BLUE + EPS, 21.8, 21.3), "colour"),
    ("below the red line", source(21.8 + RED - EPS, 21.8, 20.9), ""),
    ("above the red line", source(21.8 + RED + EPS, 21.8, 20.9), "colour"),
    ("r-z at the blue end", source(21.5, 21.8, 22.0 - EPS), ""),
    ("r-z beyond the blue end", source(21.5, 21.8, 22.0 + EPS), "r-z"),
    ("r-z at the red end", source(22.0, 22.4, 20.3 + EPS), ""),
    ("r-z beyond the red end", source(21.5, 22.4, 20.3 - EPS), "r-z"),
    ("faint end of g", source(24.5 + EPS, 23.8, 22.9), "faint_g"),
    ("bright end of g", source(20.6766 + EPS, 20.6, 20.3), ""),
    ("too bright in r", source(20.7, 20.4659 - EPS, 20.0), "bright_r"),
    ("faint end of z", source(23.2, 23.1, 23.0 + EPS), "faint_z"),
    ("no flux in z", source(flux_z=np.float32(0)), "flux"),
    ("no weight in r", source(flux_ivar_r=np.float32(0)), "flux_ivar"),
    ("a composite", source(type="COMP"), "type"),
    ("smallest radius", source(shapeexp_r=np.float32(0.131)), ""),
    ("too large", source(shapeexp_r=np.float32(2.0001)), "r_half"),
    ("another brick's", source(brick_primary=False), "brick_primary"),
    ("one band not observed", source(nobs_g=np.int16(0)), "nobs"),
]  # fmt: skip


def test_o01_the_truth_table_has_twenty_rows():
    assert len(TRUTH) == 20


@pytest.mark.parametrize(
    ("row", "removed_by"), [row[1:] for row in TRUTH], ids=[t[0] for t in TRUTH]
)
def test_o01_each_boundary_belongs_to_its_cut(row, removed_by):
    result = select_measured(columns(row), "grz", Limits())
    assert result.kept.tolist() == [removed_by == ""]
    assert [name for name, count in result.removed.items() if count] == [removed_by] * bool(
        removed_by
    )


def test_o01_all_rows_at_once_and_the_number_removed_by_each_cut():
    result = select_measured(columns(*(row for _, row, _ in TRUTH)), "grz", Limits())
    assert result.kept.tolist() == [removed == "" for _, _, removed in TRUTH]
    assert sum(result.removed.values()) == int((~result.kept).sum())
    assert result.removed["colour"] == 2
    assert result.removed["r-z"] == 2


@pytest.mark.parametrize("kind", ["PSF", "PSF ", "EXP", "REX", "SIMP", "SER"])
def test_types_that_are_kept(kind):
    assert select_measured(columns(source(type=kind)), "grz", Limits()).kept.all()


@pytest.mark.parametrize("kind", ["COMP", "DEV", "DEV ", "DUP"])
def test_types_that_are_removed(kind):
    row = source(type=kind, shapedev_r=np.float32(0.5))
    assert select_measured(columns(row), "grz", Limits()).removed["type"] == 1


def test_the_padding_is_a_perpendicular_distance():
    """A source moved by just less than the padding, at right angles to a line, stays inside."""
    for slope, intercept, rz in ((1.15, -0.15, 0.5), (-1.2, 1.6, 1.0)):
        angle = math.atan(slope)
        for pad, kept in ((0.3 - EPS, True), (0.3 + EPS, False)):
            moved_rz = rz - pad * math.sin(angle)
            gr = slope * rz + intercept + pad * math.cos(angle)
            row = source(21.8 + gr, 21.8, 21.8 - moved_rz)
            limits = Limits(colour_pad=0.3)
            assert select_measured(columns(row), "grz", limits).kept.tolist() == [kept]


def test_fewer_bands_have_fewer_cuts():
    rows = columns(source(22.3, 21.9, 15.0, flux_ivar_z=np.float32(0), nobs_z=np.int16(0)))
    assert not select_measured(rows, "grz", Limits()).kept.any()
    without_z = select_measured(rows, "gr", Limits())
    assert without_z.kept.all()
    assert not {"colour", "r-z", "faint_z", "bright_z"} & set(without_z.removed)
    assert "r-z" in select_measured(rows, "rz", Limits()).removed


def test_input_values_pass_the_cuts_on_appearance_only():
    """Injected values have no type, exposures or weights (the original had no cuts for them)."""
    mags = {"g": np.array([22.3, 22.3, 26.0]), "r": np.full(3, 21.9), "z": np.full(3, 21.2)}
    result = select_input(mags, np.array([0.5, 3.0, 0.5], "f4"), Limits())
    assert result.kept.tolist() == [True, False, False]
    assert set(result.removed) == {"colour", "r-z", "r_half"} | {
        f"{end}_{band}" for end in ("faint", "bright") for band in "grz"
    }


def test_select_all_keeps_all():
    assert select_all(3).kept.tolist() == [True] * 3


def test_magnitudes_are_corrected_for_extinction():
    corrected = corrected_magnitudes(columns(source()), "grz")
    np.testing.assert_allclose([corrected[b][0] for b in "grz"], [22.3, 21.9, 21.2], atol=1e-6)


def test_half_light_radius_by_type():
    psf = {f"psfsize_{b}": np.float32(s) for b, s in zip("grz", (1.4, np.nan, 1.0), strict=True)}
    unknown = {f"psfsize_{b}": np.float32(np.nan) for b in "grz"}
    radii = {"shapeexp_r": np.float32(0.4), "shapedev_r": np.float32(0.8)}
    rows = columns(
        source(type="PSF", **psf), source(type="PSF", **unknown), source(type="EXP", **radii),
        source(type="DEV", **radii), source(type="COMP", **radii),
    )  # fmt: skip
    radius = half_light_radius(rows, "grz")
    assert radius.dtype == np.float32
    np.testing.assert_allclose(radius, [0.6, np.nan, 0.4, 0.8, 0.6], rtol=1e-6)
    assert select_measured(rows, "grz", Limits()).kept.tolist() == [True, True, True, False, False]


def test_an_empty_catalogue():
    empty = {name: values[:0] for name, values in columns(source()).items()}
    result = select_measured(empty, "grz", Limits())
    assert result.kept.shape == (0,)
    assert sum(result.removed.values()) == 0


@pytest.mark.real
def test_real_catalogues(real_data):
    """Rows of data release 6: every cut works on the survey's own columns and types."""
    paths = sorted((real_data / "obiwan" / "tractor_dr6").glob("tractor-*.fits"))
    assert paths
    for path in paths:
        rows = survey.read_tractor(path, "grz")
        result = select_measured(rows, "grz", Limits())
        assert int(result.kept.sum()) + sum(result.removed.values()) == len(rows["objid"])
        assert not (result.kept & (rows["type"] == "DEV")).any()
        galaxies = np.isin(rows["type"], ["EXP", "REX", "DEV"])
        assert (half_light_radius(rows, "grz")[galaxies] > 0).all()
