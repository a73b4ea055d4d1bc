"""The PSFEx model of a CCD, and its replacement if there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import galsim
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.obiwan.reduction import archive
from skyproof.obiwan.reduction.psf import MoffatPsf, PsfexModel, psfex_from_values, read_psf
from tests.unit.obiwan.build import ccds as ccds_build

LOG = logging.getLogger("test")


def values(degree: int, n: int = 11) -> dict[str, object]:
    """A model with distinguishable terms: term i has value i + 1 in pixel i."""
    terms = (degree + 1) * (degree + 2) // 2
    basis = np.zeros((terms, n, n))
    basis[0] = 1
    for i in range(1, terms):
        basis[i, i, 0], basis[i, i, 1] = i, -i
    return {
        "psf_mask": basis, "poldeg1": degree, "psf_samp": 0.5,
        "polzero1": 100.0, "polzero2": 200.0, "polscal1": 50.0, "polscal2": 80.0,
    }  # fmt: skip


def test_polynomial_terms_are_in_the_order_of_psfex() -> None:
    """1, u, u^2, v, u v, v^2 with u, v counted from the 1-based zero point."""
    model = psfex_from_values(Path("x"), values(2))
    u, v = 0.4, -0.3
    stamp = model.stamp(100 + 50 * u - 1, 200 + 80 * v - 1)
    terms = stamp[np.arange(1, 6), 0] * 11 * 11 - 1
    np.testing.assert_allclose(terms, [u, 2 * u**2, 3 * v, 4 * u * v, 5 * v**2], rtol=1e-9)


def test_profile_is_the_stamp_in_image_pixels() -> None:
    """PSF_SAMP is the size of a sample in image pixels; the flux is 1."""
    y, x = np.mgrid[-20:21, -20:21] * 0.5
    sigma = 2.0
    model = PsfexModel(np.exp(-0.5 * (x**2 + y**2) / sigma**2)[np.newaxis], (0, 0), (1, 1), 0, 0.5)
    profile = model.at(10, 10)
    assert profile.flux == pytest.approx(1)
    image = galsim.Image(41, 41, scale=1.0)
    profile.drawImage(image, method="no_pixel")
    assert image.array.max() == pytest.approx(1 / (2 * np.pi * sigma**2), rel=1e-3)
    assert profile.calculateFWHM() == pytest.approx(2.3548 * sigma, rel=5e-3)


def test_merged_file_gives_the_row_of_the_ccd_without_padding(tmp_path: Path) -> None:
    ccd_files = ccds_build.make_ccd_files(tmp_path, "g")
    key = archive.Key(ccd_files.names["g"], ccds_build.CAMERA, 7000, ccds_build.CCDNAME)
    psf = read_psf(ccd_files.calib, key, 3.0, LOG)
    assert isinstance(psf, PsfexModel)
    np.testing.assert_allclose(
        psf.stamp(150.0, 20.0), ccds_build.psf_stamp(150.0, 20.0), atol=1e-12
    )


def test_without_a_model_the_width_of_the_table_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = archive.Key("a_ooi_g.fits", "cam", 1, "N1")
    psf = read_psf(tmp_path, key, 3.5, LOG)
    assert isinstance(psf, MoffatPsf)
    assert psf.at(0, 0).calculateFWHM() == pytest.approx(3.5, rel=1e-3)
    assert "no PSFEx model" in caplog.text
    with pytest.raises(InputError, match="field fwhm"):
        read_psf(tmp_path, key, 0.0, LOG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psf_mask": None}, "field PSF_MASK"),
        ({"polscal2": None}, "field POLSCAL2"),
        ({"psf_mask": np.ones((2, 5, 5))}, "field psf_mask"),
        ({"psf_mask": np.full((6, 5, 5), np.nan)}, "is not a PSF"),
        ({"psf_samp": 0.0}, "is not a PSF"),
    ],
)
def test_unusable_models_are_errors(change: dict[str, object], message: str) -> None:
    changed = {**values(2), **change}
    changed = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(InputError, match=message):
        psfex_from_values(Path("model.fits"), changed)
