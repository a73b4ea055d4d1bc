"""Reading and calibrating single CCD images: synthetic ones with known truth, and real ones."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyproof.core.errors import InputError
from skyproof.obiwan.reduction.ccds import Exposure, read_ccds, read_exposure, read_wcs
from tests.unit.obiwan.build import ccds as ccds_build
from tests.unit.obiwan.build.ccds import CcdFiles, make_ccd_files

LOG = logging.getLogger("test")


def read(ccd_files: CcdFiles, band: str = "g") -> Exposure:
    _, ccds = read_ccds(ccd_files.table)
    ccd = next(c for c in ccds if c.band == band)
    return read_exposure(ccd, ccd_files.table, ccd_files.images, ccd_files.calib, LOG)


@pytest.fixture(scope="module")
def exposure(tmp_path_factory: pytest.TempPathFactory) -> Exposure:
    return read(make_ccd_files(tmp_path_factory.mktemp("ccd")))


def test_sky_is_zero_and_noise_is_the_weights(exposure: Exposure) -> None:
    """The sky model is evaluated at the part's position; weights scale with the zero point."""
    good = exposure.ivar > 0
    assert np.sqrt(1 / np.median(exposure.ivar)) == pytest.approx(ccds_build.SKY_SIGMA, rel=1e-5)
    chi = (exposure.image * np.sqrt(exposure.ivar))[good]
    low, median, high = np.percentile(chi, [15.865, 50, 84.135])
    assert abs(median) < 0.1  # measured: 0.055, from the wings of the stars
    assert (high - low) / 2 == pytest.approx(1, abs=0.05)


def test_a_star_has_its_flux_and_position(exposure: Exposure) -> None:
    """A planted star is recovered in nanomaggies; the table's offset moves the header's WCS."""
    x, y = ccds_build.STARS[2]
    box = np.s_[round(y) - 20 : round(y) + 21, round(x) - 20 : round(x) + 21]
    assert exposure.image[box].sum() == pytest.approx(ccds_build.STAR_FLUX, rel=0.01)
    found = exposure.wcs.pixel_to_world_values(x, y)
    wanted = ccds_build.true_wcs().pixel_to_world_values(x, y)
    np.testing.assert_allclose(found, wanted, atol=0.001 / 3600)


def test_masked_pixels_are_zero(exposure: Exposure) -> None:
    """Mask, missing weight and NaN each mask a pixel; extreme values there have no effect."""
    for bad in (np.s_[:, 20], np.s_[:3, :], np.s_[100, 100]):
        assert np.all(exposure.ivar[bad] == 0)
        assert np.all(exposure.image[bad] == 0)
    assert (exposure.ivar > 0).mean() > 0.97


def test_rates_and_counts(tmp_path: Path, exposure: Exposure) -> None:
    """A rate has the zero point of a second; counts have that of the exposure time and the gain."""
    per_second = ccds_build.counts_per_nanomaggy()
    assert exposure.electrons == pytest.approx(per_second * ccds_build.EXPTIME)
    ccd_files = make_ccd_files(tmp_path, "g")
    ccds_build.change_table(ccd_files.table, GAIN=3.0)
    path = ccd_files.image("g")
    with fits.open(path) as file:
        file[0].header["BUNIT"] = "adu"
        file.writeto(path, overwrite=True)
    counts = read(ccd_files)
    assert counts.electrons == pytest.approx(per_second * ccds_build.EXPTIME * 3.0)
    good = counts.ivar > 0
    np.testing.assert_allclose(
        counts.image[good], exposure.image[good] / ccds_build.EXPTIME, rtol=1e-4, atol=1e-6
    )


def test_weights_that_count_sources_are_recognised(tmp_path: Path, exposure: Exposure) -> None:
    """Injected light adds to the variance only if the pipeline's weights do the same."""
    assert not exposure.noise_of_sources  # the weights of the files are flat
    ccd_files = make_ccd_files(tmp_path, "g")
    scale = ccds_build.counts_per_nanomaggy()
    light = np.maximum(exposure.image, 0) * scale
    variance = (ccds_build.SKY_SIGMA * scale) ** 2 + light / ccds_build.EXPTIME
    ccds_build.write_plane(ccd_files.image("g", "w"), (1 / variance).astype(np.float32))
    assert read(ccd_files).noise_of_sources


def test_missing_calibrations_are_replaced_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ccd_files = make_ccd_files(tmp_path, "g")
    for path in ccd_files.calib.rglob("*.fits"):
        path.unlink()
    exposure = read(ccd_files)
    assert "no sky model" in caplog.text
    assert "no PSFEx model" in caplog.text
    chi = (exposure.image * np.sqrt(exposure.ivar))[exposure.ivar > 0]
    assert abs(np.median(chi)) < 0.3  # the true sky has a gradient, the constant has none
    assert exposure.psf.at(0, 0).calculateFWHM() == pytest.approx(ccds_build.FWHM, rel=1e-3)


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", "-CCD2.fits"])
def test_images_are_found_in_other_forms(tmp_path: Path, suffix: str, exposure: Exposure) -> None:
    """Plain, gzipped, or one file per CCD, and in another folder than in the table."""
    ccd_files = make_ccd_files(tmp_path, "g")
    elsewhere = ccd_files.images / "flat"
    elsewhere.mkdir()
    for kind in "iwd":
        path = ccd_files.image("g", kind)
        with fits.open(path) as file:
            image = fits.ImageHDU(file[2].data, file[2].header)
            name = path.name.replace(".fits.fz", suffix)
            fits.HDUList([file[0], image]).writeto(elsewhere / name)
        path.unlink()
    np.testing.assert_array_equal(read(ccd_files).image, exposure.image)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def reshape(path: Path) -> None:
    ccds_build.write_plane(path, np.ones((9, 9), np.float32), ccds_build.header_wcs())


def fill(value: float) -> object:
    def change(path: Path) -> None:
        plane = np.full((ccds_build.SIZE, ccds_build.SIZE), value, np.float32)
        ccds_build.write_plane(path, plane, ccds_build.header_wcs())

    return change


def drop_wcs(path: Path) -> None:
    ccds_build.write_plane(path, np.ones((ccds_build.SIZE, ccds_build.SIZE), np.float32))


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("i", Path.unlink, "does not exist"),
        ("w", Path.unlink, "does not exist"),
        ("d", Path.unlink, "does not exist"),
        ("i", truncate, "expected a whole FITS file"),
        ("w", truncate, "expected a whole FITS file"),
        ("i", lambda path: path.write_bytes(b""), "expected a whole FITS file"),
        ("d", lambda path: path.write_text("not a picture\n" * 500), "expected a whole FITS file"),
        ("w", reshape, "has shape"),
        ("i", fill(np.nan), "no usable pixel"),
        ("w", fill(0), "no usable pixel"),
        ("d", fill(1), "no usable pixel"),
        ("i", drop_wcs, "WCS"),
    ],
)
def test_bad_planes_are_named(tmp_path: Path, kind: str, damage: object, message: str) -> None:
    ccd_files = make_ccd_files(tmp_path, "g")
    path = ccd_files.image("g", kind)
    damage(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as error:
        read(ccd_files)
    assert path.name.split("_v1")[0][:20] in str(error.value)


@pytest.mark.parametrize("folder", ["psfex", "sky"])
def test_bad_calibrations_are_named(tmp_path: Path, folder: str) -> None:
    """A broken calibration is an error and is not treated as a missing one."""
    ccd_files = make_ccd_files(tmp_path, "g")
    path = next((ccd_files.calib / folder).rglob("*.fits"))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=path.name):
        read(ccd_files)


def test_bad_rows_and_tables_are_named(tmp_path: Path) -> None:
    ccd_files = make_ccd_files(tmp_path, "g")
    ccds_build.change_table(ccd_files.table, ZPT=0.0)
    with pytest.raises(InputError, match=r"field ccdzpt: is 0"):
        read(ccd_files)
    ccds_build.change_table(ccd_files.table, CCD_CUTS=4)
    with pytest.raises(InputError, match="no usable row"):
        read_ccds(ccd_files.table)
    ccds_build.change_table(ccd_files.table, EXPTIME=None)
    with pytest.raises(InputError, match="field exptime: has no such column"):
        read_ccds(ccd_files.table)
    ccd_files.table.write_text("no table")
    with pytest.raises(InputError, match="survey-ccds"):
        read_ccds(ccd_files.table)


def test_real_exposures_are_calibrated(real_data: Path) -> None:
    """The noise per pixel equals the survey's (sig1); sky is zero; gain and PSF are plausible."""
    folder = real_data / "obiwan/testcase_decals_grz"
    if not folder.is_dir():
        pytest.skip(f"no real exposures: {folder} is absent")
    rows, ccds = read_ccds(folder / "survey-ccds-1.fits.gz")
    assert {ccd.band for ccd in ccds} == set("grz")
    for ccd in ccds:
        exposure = read_exposure(
            ccd, folder / "survey-ccds-1.fits.gz", folder / "images", folder / "calib", LOG
        )
        good = exposure.ivar > 0
        sigma = 1 / np.sqrt(np.median(exposure.ivar[good]))
        assert sigma == pytest.approx(rows["sig1"][ccd.row], rel=2e-3)  # measured: within 4e-4
        chi = (exposure.image * np.sqrt(exposure.ivar))[good]
        assert abs(np.median(chi)) < 0.1  # measured: 0.04 to 0.06, sources included
        spread = 1.4826 * np.median(np.abs(chi - np.median(chi)))
        assert 0.95 < spread < 1.12  # measured: 1.04 to 1.07
        assert exposure.noise_of_sources
        width = exposure.psf.at(100, 100).calculateFWHM()
        assert 0.75 < width / ccd.fwhm < 1.1  # measured: 0.82 to 0.97 of the table's
        wcs, shape = read_wcs(folder / "images", ccd)
        ra, dec = wcs.pixel_to_world_values((shape[1] - 1) / 2, (shape[0] - 1) / 2)
        assert ra == pytest.approx(28.4194, abs=1e-3)
        assert dec == pytest.approx(-16.4362, abs=1e-3)
