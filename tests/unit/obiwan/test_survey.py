"""Paths and content of a survey's files, and the positions of bricks on the sky."""

from __future__ import annotations

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyproof.core.errors import InputError, UsageError
from skyproof.core.formats import write
from skyproof.obiwan import survey
from skyproof.obiwan.bricks import grid
from skyproof.obiwan.bricks.grid import bricks_of_block
from skyproof.sky.tan import Tan, footprint_info, tan_from_info
from tests.unit.obiwan.build.bricks import brick_names, synthetic_bricks

BRICK = "1211p060"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_paths_of_the_layout(tmp_path):
    """o02: the paths of docs/obiwan-outputs.md."""
    coadd = "coadd/121/1211p060/rs0/legacysurvey-1211p060"
    assert str(survey.image_path("", BRICK, "invvar", "z", "rs0")) == f"{coadd}-invvar-z.fits.fz"
    assert str(survey.ccds_path("", BRICK, "rs0")) == f"{coadd}-ccds.fits"
    assert (
        str(survey.image_path("", BRICK, "image", "g"))
        == "coadd/121/1211p060/legacysurvey-1211p060-image-g.fits.fz"
    )
    simcat = "obiwan/121/1211p060/rs300/simcat-elg-1211p060.fits"
    assert str(survey.simcat_path("", BRICK, "rs300")) == simcat


def test_the_catalogue_of_a_realisation_comes_before_the_release(tmp_path):
    """o02"""
    release = tmp_path / "tractor/121/tractor-1211p060.fits"
    assert survey.tractor_path(tmp_path, BRICK, "rs0") == release
    own = touch(tmp_path / "tractor/121/1211p060/rs0/tractor-1211p060.fits")
    assert survey.tractor_path(tmp_path, BRICK, "rs0") == own
    assert survey.tractor_path(tmp_path, BRICK) == release


def test_realisations_are_folders_with_a_table_of_ccds_in_natural_order(tmp_path):
    """o02"""
    assert survey.realizations(tmp_path, BRICK) == []
    for name in ("rs300", "rs0", "skip_rs20", "skip_rs3", "more_rs0", "more_skip_rs0", "old_rs1"):
        touch(survey.ccds_path(tmp_path, BRICK, name))
    touch(survey.image_path(tmp_path, BRICK, "image", "g", "rs600"))
    assert survey.realizations(tmp_path, BRICK) == [
        "more_rs0", "more_skip_rs0", "rs0", "rs300", "skip_rs3", "skip_rs20",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["plain.fits", "compressed.fits.fz"])
def test_a_plane_and_its_projection_are_read_back(tmp_path, name):
    tan = synthetic_bricks(1, 70)[0][1]
    image = np.arange(70 * 70, dtype="f4").reshape(70, 70)
    how = "GZIP_2" if name.endswith("fz") else None
    write.fits_image(tmp_path / name, image, header=tan.cards(), compress=how)
    pixels, header = survey.read_plane(tmp_path / name, (70, 70))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, image)
    assert Tan.from_header(header) == tan
    with pytest.raises(InputError, match="is 70 x 70 pixels; expected 71 x 70"):
        survey.read_plane(tmp_path / name, (70, 71))


def damaged(kind, path):
    image = np.random.default_rng(1).standard_normal((200, 200)).astype("f4")
    if kind == "cube":
        image = image[None]
    if kind == "nan":
        image[:] = np.nan
    if kind == "table":
        write.fits_table(path, {"id": np.arange(3)})
    else:
        write.fits_image(path, image, compress=None if kind == "cube" else "GZIP_2")
    whole = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "text":
        path.write_text("no such object\n" * 500)
    if kind == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("truncated", "cannot be read: .+; expected a whole FITS file"),
        ("text", "cannot be read: .+; expected a whole FITS file"),
        ("table", "holds no image"),
        ("cube", "has 3 axes"),
        ("nan", "every pixel is NaN"),
    ],
)
def test_a_bad_image_is_named_in_one_line(tmp_path, kind, said):
    path = damaged(kind, tmp_path / "image.fits.fz")
    with pytest.raises(InputError, match=said) as caught:
        survey.read_plane(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def tractor_columns(**more):
    n = 2
    columns = {
        "objid": np.arange(n), "type": np.array([b"EXP", b"DEV"]),
        "ra": np.full(n, 121.0), "dec": np.full(n, 6.0),
    }  # fmt: skip
    for name in ("flux_g", "flux_ivar_g", "mw_transmission_g"):
        columns[name] = np.ones(n, "f4")
    return {**columns, "nobs_g": np.ones(n, "i2"), **more}


def test_newer_catalogues_have_one_radius(tmp_path):
    path = tmp_path / "tractor.fits"
    radius = np.array([0.5, 0.7], "f4")
    write.fits_table(path, tractor_columns(shape_r=radius, sersic=radius))
    table = survey.read_tractor(path, "g")
    np.testing.assert_array_equal(table["shapeexp_r"], radius)
    np.testing.assert_array_equal(table["shapedev_r"], radius)
    write.fits_table(path, tractor_columns(shapeexp_r=radius))
    with pytest.raises(InputError, match="field shapedev_r"):
        survey.read_tractor(path, "g")
    with pytest.raises(InputError, match="field flux_r"):
        survey.read_tractor(path, "gr")


@pytest.mark.real
def test_a_real_catalogue_of_release_6(real_data):
    """Column names are upper case, and there are no pixel positions and no PSF sizes."""
    path = real_data / "obiwan/tractor_dr6/tractor-3303p000.fits"
    table = survey.read_tractor(path, "grz")
    raw = fitsio.read(path)
    np.testing.assert_array_equal(table["flux_z"], raw["FLUX_Z"])
    assert np.isnan(table["bx"]).all()
    assert np.isnan(table["psfsize_r"]).all()
    assert table["brick_primary"].all()
    assert set(table["type"].tolist()) <= {"PSF", "REX", "EXP", "DEV", "COMP"}


@pytest.mark.real
def test_the_grid_is_the_surveys(real_data):
    """Names, identifiers and centres as in survey-bricks and in catalogues of other fields."""
    row = fitsio.read(real_data / "obiwan/testcase_decals_grz/survey-bricks.fits.gz")[0]
    brick = grid.brick_of_id(int(row["brickid"]))
    assert (brick.name, brick.ra, brick.dec) == (row["brickname"], row["ra"], row["dec"])
    for name in ("3303p000", "3301m002", "3301m007"):
        raw = fitsio.read(real_data / f"obiwan/tractor_dr6/tractor-{name}.fits")
        brick = grid.brick_of_id(int(raw["BRICKID"][0]))
        assert brick.name == name
        # A catalogue extends beyond the border of its brick.
        within = np.abs(raw["DEC"] - brick.dec) < 0.125
        found = grid.bricks_at(raw["RA"], raw["DEC"])
        np.testing.assert_array_equal(found == brick.id, within)


def test_bricks_of_a_synthetic_survey():
    names = brick_names(3000)
    assert names[0] == BRICK
    assert len(set(names)) == len(names)
    bricks = grid.survey_bricks(3000)
    ids = grid.bricks_at(np.array([b.ra for b in bricks]), np.array([b.dec for b in bricks]))
    assert ids.tolist() == [b.id for b in bricks]
    with pytest.raises(UsageError, match="662174"):
        brick_names(662175)


def test_neighbouring_images_of_1000_pixels_share_no_sky():
    """o16: not even across the end of a row."""
    tans = [tan for _, tan in synthetic_bricks(1500, 1000)]
    x, y = (np.array(c) for c in tans[0].pixel([t.ra for t in tans[1:]], [t.dec for t in tans[1:]]))
    near = np.maximum(abs(x - 499.5), abs(y - 499.5))
    assert np.nanmin(near) > 1010  # measured: 3431


def test_blocks_cover_the_bricks_once():
    names = brick_names(7)
    blocks = [bricks_of_block(names, block, 3) for block in range(3)]
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert [name for block in blocks for name in block] == names
    for block in (-1, 3):
        with pytest.raises(UsageError, match="7 bricks make blocks 0 to 2"):
            bricks_of_block(names, block, 3)


def tan_at(ra, dec, turn=0.0):
    cos, sin = 7.3e-5 * np.cos(np.radians(turn)), 7.3e-5 * np.sin(np.radians(turn))
    return Tan(ra, dec, (1800.5, 900.25), ((-cos, sin), (sin, cos)), 3600, 1800)


@pytest.mark.parametrize(
    ("ra", "dec", "turn"),
    [(121.1, 6.0, 0), (0.02, -16.5, 0), (359.99, 30.0, 25), (10.0, 89.95, -70), (200, -89.99, 5)],
)
def test_the_projection_agrees_with_wcslib(ra, dec, turn):
    tan = tan_at(ra, dec, turn)
    wcs = WCS(fits.Header(tan.cards()))
    x, y = np.random.default_rng(2).uniform(-50, 3650, (2, 500))
    ra_found, dec_found = tan.sky(x, y)
    expected = wcs.pixel_to_world_values(x, y)
    assert ((ra_found >= 0) & (ra_found < 360)).all()
    # measured: 3e-10 deg, beside the pole; 360 deg may stand for 0
    np.testing.assert_allclose((ra_found - expected[0] + 180) % 360 - 180, 0, atol=1e-9)
    np.testing.assert_allclose(dec_found, expected[1], atol=1e-12)  # measured: 6e-14 deg
    np.testing.assert_allclose(tan.pixel(*expected), [x, y], atol=1e-7)  # measured: 1e-9 pixel


def test_the_far_hemisphere_has_no_pixel():
    assert np.isnan(tan_at(10, 20).pixel(190, -20)).all()


def test_a_footprint_is_read_back():
    tan = tan_at(33.0, -5.0, 12)
    info = footprint_info(tan)
    assert tan_from_info(info) == tan
    assert (info["width"], info["height"]) == (3600, 1800)
    ra, dec = tan.sky(1799.5, 899.5)
    assert (info["ra"], info["dec"]) == (ra, dec)
    with pytest.raises(InputError, match="field wcs"):
        tan_from_info({})


def test_a_header_without_projection_is_an_error():
    cards = tan_at(1, 2).cards()
    with pytest.raises(InputError, match=r"b\.fits, field CTYPE"):
        Tan.from_header({**cards, "CTYPE1": "RA---TPV"}, "b.fits")
    del cards["CRVAL2"]
    with pytest.raises(InputError, match="CRVAL2"):
        Tan.from_header(cards, "b.fits")
    scale = {k: v for k, v in tan_at(1, 2).cards().items() if not k.startswith("CD")}
    old = Tan.from_header({**scale, "CDELT1": -7.3e-5, "CDELT2": 7.3e-5})
    np.testing.assert_allclose(old.cd, tan_at(1, 2).cd)


def test_columns_of_a_stamp_table():
    names = survey.stamp_dtype("gz").names
    assert names == (
        "id", "brick", "rs", "label", "ra", "dec", "x", "y", "dx", "dy", "type",
        "mag_g", "mag_z", "r_half", "psfsize_g", "psfsize_z", "ivar_g", "ivar_z",
    )  # fmt: skip
