"""The tangent-plane projection of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyproof.core.errors import InputError


@dataclass(frozen=True)
class Tan:
    """A gnomonic (TAN) projection; Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3."""

    ra: float  # of the tangent point [deg]
    dec: float
    crpix: tuple[float, float]  # 1-based pixel (x, y) of the tangent point
    cd: tuple[tuple[float, float], tuple[float, float]]  # d(xi, eta)/d(x, y) [deg/pixel]
    width: int  # of the image [pixel]
    height: int

    @classmethod
    def from_header(cls, header: Mapping[str, Any], file: object = "header") -> Tan:
        """Read the cards of a FITS header. Raise InputError, with `file`, if they are not valid."""
        try:
            kinds = str(header["CTYPE1"]).strip(), str(header["CTYPE2"]).strip()
            if kinds != ("RA---TAN", "DEC--TAN"):
                raise InputError(
                    str(file), f"has axes {kinds}", field="CTYPE", expected="RA---TAN and DEC--TAN"
                )
            return cls(
                ra=float(header["CRVAL1"]),
                dec=float(header["CRVAL2"]),
                crpix=(float(header["CRPIX1"]), float(header["CRPIX2"])),
                cd=_cd_matrix(header),
                width=_axis(header, 1),
                height=_axis(header, 2),
            )
        except (KeyError, ValueError) as error:
            raise InputError(
                str(file), f"has no usable {error}", expected="cards of a TAN projection"
            ) from None

    def cards(self) -> dict[str, Any]:
        """Return the header cards; `from_header` reads the same values from them."""
        (cd11, cd12), (cd21, cd22) = self.cd
        return {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
            "CRVAL1": self.ra, "CRVAL2": self.dec,
            "CRPIX1": self.crpix[0], "CRPIX2": self.crpix[1],
            "CD1_1": cd11, "CD1_2": cd12, "CD2_1": cd21, "CD2_2": cd22,
            "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS", "EQUINOX": 2000.0,
            "IMAGEW": self.width, "IMAGEH": self.height,
        }  # fmt: skip

    def pixel(self, ra: Any, dec: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based pixel positions x, y; NaN on the far hemisphere. Arguments in degrees."""
        offset = np.radians(np.asarray(ra, float) - self.ra)
        dec, dec0 = np.radians(np.asarray(dec, float)), np.radians(self.dec)
        depth = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(offset)
        depth = np.where(depth > 0, depth, np.nan)
        xi = np.degrees(np.cos(dec) * np.sin(offset) / depth)
        eta = np.degrees(
            (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(offset)) / depth
        )
        (a, b), (c, d) = self.cd
        det = a * d - b * c
        x = (d * xi - b * eta) / det + self.crpix[0] - 1
        y = (a * eta - c * xi) / det + self.crpix[1] - 1
        return x, y

    def sky(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return right ascension in [0, 360) and declination [deg] of 0-based pixel positions."""
        dx = np.asarray(x, float) + 1 - self.crpix[0]
        dy = np.asarray(y, float) + 1 - self.crpix[1]
        (a, b), (c, d) = self.cd
        xi, eta = np.radians(a * dx + b * dy), np.radians(c * dx + d * dy)
        sin0, cos0 = np.sin(np.radians(self.dec)), np.cos(np.radians(self.dec))
        towards = cos0 - eta * sin0
        ra = self.ra + np.degrees(np.arctan2(xi, towards))
        dec = np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(xi, towards)))
        return ra % 360.0, dec


def _cd_matrix(header: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    if "CD1_1" in header:
        cell = {(i, j): _number(header, f"CD{i}_{j}", 0.0) for i in (1, 2) for j in (1, 2)}
    else:
        cell = {
            (i, j): float(header[f"CDELT{i}"]) * _number(header, f"PC{i}_{j}", float(i == j))
            for i in (1, 2)
            for j in (1, 2)
        }
    if cell[1, 1] * cell[2, 2] == cell[1, 2] * cell[2, 1]:
        raise ValueError("CD matrix (it is singular)")
    return (cell[1, 1], cell[1, 2]), (cell[2, 1], cell[2, 2])


def _number(header: Mapping[str, Any], name: str, default: float) -> float:
    return float(header[name]) if name in header else default


def _axis(header: Mapping[str, Any], axis: int) -> int:
    # A compressed image is a table: ZNAXISn is the size of the image, NAXISn that of the table.
    letter = "WH"[axis - 1]
    for name in (f"ZNAXIS{axis}", f"IMAGE{letter}", f"NAXIS{axis}"):
        if name in header:
            return int(header[name])
    raise KeyError(f"NAXIS{axis}")


def footprint_info(tan: Tan) -> dict[str, Any]:
    """Return the block index's entry of a brick's footprint: centre [deg], size [pixel], WCS."""
    ra, dec = tan.sky((tan.width - 1) / 2, (tan.height - 1) / 2)
    return {
        "ra": float(ra),
        "dec": float(dec),
        "width": tan.width,
        "height": tan.height,
        "wcs": tan.cards(),
    }


def tan_from_info(info: Mapping[str, Any], file: object = "block index") -> Tan:
    """Return the projection from `footprint_info`. Raise InputError if it is missing."""
    if "wcs" not in info:
        raise InputError(str(file), "has no footprint", field="wcs", expected="WCS cards")
    return Tan.from_header(info["wcs"], file)
