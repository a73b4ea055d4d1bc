"""The point-spread function of a CCD: a PSFEx model, or a Moffat profile if there is no model.

A PSFEx model (Bertin 2011, ASP Conf. Ser. 442, 435) is a set of images `psf_mask` [terms, ny, nx],
sampled at PSF_SAMP image pixels. The model at a position is their sum with weights u^j v^k,
j + k <= POLDEG, u = (x - POLZERO1) / POLSCAL1, v the same in y. It includes the response of the
pixel: light convolved with it must not be integrated over pixels again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import galsim
import numpy as np

from skyproof.core.errors import InputError
from skyproof.obiwan.reduction import archive

# Between the usual measured value, 2.5, and theory, 4.8 (Trujillo et al. 2001, MNRAS 328, 977).
_MOFFAT_BETA = 3.5


class Psf(Protocol):
    """A point-spread function that may vary over its CCD."""

    def at(self, x: float, y: float) -> galsim.GSObject:
        """Return the profile at 0-based pixel (x, y): unit flux, lengths in pixels."""


@dataclass(frozen=True)
class PsfexModel:
    """A PSFEx model."""

    basis: np.ndarray  # [terms, ny, nx], terms ordered 1, u, u^2, ..., v, u v, ..., v^2, ...
    zero: tuple[float, float]
    scale: tuple[float, float]
    degree: int
    sampling: float  # image pixels per sample

    def stamp(self, x: float, y: float) -> np.ndarray:
        """Return the image [ny, nx] of the model at 0-based pixel (x, y), normalised to sum 1."""
        # PSFEx counts pixels from 1.
        u = (x + 1 - self.zero[0]) / self.scale[0]
        v = (y + 1 - self.zero[1]) / self.scale[1]
        terms = [u**j * v**k for k in range(self.degree + 1) for j in range(self.degree + 1 - k)]
        image = np.tensordot(np.array(terms), self.basis, axes=1)
        return image / image.sum()

    def at(self, x: float, y: float) -> galsim.GSObject:
        image = galsim.Image(self.stamp(x, y), scale=self.sampling)
        return galsim.InterpolatedImage(image, x_interpolant="lanczos3", flux=1.0)


@dataclass(frozen=True)
class MoffatPsf:
    """A round Moffat profile, constant over the CCD."""

    fwhm: float  # pixel

    def at(self, x: float, y: float) -> galsim.GSObject:
        return galsim.Moffat(beta=_MOFFAT_BETA, fwhm=self.fwhm, flux=1.0)


def read_psf(calib: Path, key: archive.Key, fwhm: float, log: logging.Logger) -> Psf:
    """Return the PSFEx model of a CCD, or with a warning a Moffat profile of `fwhm` pixels.

    Raise InputError for an invalid calibration file, or if there is none and `fwhm` is not
    positive.
    """
    found = archive.read_calibration(calib, "psfex", key)
    if found is not None:
        return psfex_from_values(*found)
    name = f"{key.image_filename}[{key.ccdname}]"
    if not fwhm > 0:
        raise InputError(
            name, f"no PSFEx model below {calib}, and no width", field="fwhm", expected="pixels > 0"
        )
    log.warning("%s: no PSFEx model below %s; a Moffat of %.2f pixels", name, calib, fwhm)
    return MoffatPsf(fwhm)


def psfex_from_values(path: Path, values: Mapping[str, Any]) -> PsfexModel:
    """Build the model from the values of a calibration (lower-case names). Raise InputError."""
    try:
        degree = int(values["poldeg1"]) if "poldeg1" in values else 0
        terms = (degree + 1) * (degree + 2) // 2
        basis = np.asarray(values["psf_mask"], dtype=np.float64)
        basis = basis[np.newaxis] if basis.ndim == 2 else basis
        # Rows of merged files are padded to the largest model of the exposure.
        nx, ny = int(values.get("psfaxis1", 0)), int(values.get("psfaxis2", 0))
        basis = basis[:terms, : ny or None, : nx or None]
        sampling = float(values["psf_samp"])
        flat = degree == 0
        zero = tuple(0.0 if flat else float(values[f"polzero{i}"]) for i in (1, 2))
        scale = tuple(1.0 if flat else float(values[f"polscal{i}"]) for i in (1, 2))
    except KeyError as error:
        raise InputError(path, "is missing", field=str(error).strip("'").upper()) from None
    if basis.ndim != 3 or len(basis) != terms:
        raise InputError(
            path, f"has shape {basis.shape}", field="psf_mask", expected=f"[{terms}, ny, nx]"
        )
    if not (np.all(np.isfinite(basis)) and basis[0].sum() > 0 and sampling > 0 and min(scale) > 0):
        expected = "finite values of positive sum"
        raise InputError(path, "is not a PSF", field="psf_mask", expected=expected)
    return PsfexModel(basis, (zero[0], zero[1]), (scale[0], scale[1]), degree, sampling)
