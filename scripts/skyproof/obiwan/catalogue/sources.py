"""The sources of a brick image: their classes and their rows in the table of stamps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyproof.obiwan import survey
from skyproof.obiwan.catalogue import selection
from skyproof.obiwan.stamps.reader import CLASSES
from skyproof.sky.matching import nearest_within
from skyproof.sky.stamps import centre_pixel, on_image
from skyproof.sky.tan import Tan

if TYPE_CHECKING:
    from skyproof.obiwan.options import Cutouts

MATCH_ARCSEC = 1.0  # matching radius of catalogued and injected sources


@dataclass(frozen=True)
class BrickImage:
    """One image of a brick and the classes that are cut from it."""

    root: Path
    rs: str  # realisation folder; empty for the coadds of a release
    classes: tuple[str, ...]


def tables(
    image: BrickImage, brick: str, tan: Tan, options: Cutouts, counts: dict[str, Counter[str]]
) -> dict[str, np.ndarray]:
    """Return class -> table of the selected sources on the image, by id; `ivar_*` are not set."""
    result = {}
    simcat = tractor = None
    if "fake" in image.classes or options.real_images == "injected":
        path = survey.simcat_path(image.root, brick, image.rs)
        simcat = survey.read_simcat(path, options.bands)
    if "real" in image.classes or options.fake_values == "measured":
        path = survey.tractor_path(image.root, brick, image.rs)
        tractor = survey.read_tractor(path, options.bands)
    for name in image.classes:
        if name == "fake" and options.fake_values == "input":
            assert simcat is not None
            table, selected = input_sources(simcat, tan, options)
        else:
            assert tractor is not None
            rows = class_rows(name, tractor, simcat)
            if name == "real":
                counts[name]["near_injected"] = len(tractor["ra"]) - len(rows)
            elif simcat is not None:
                counts[name]["not_found"] = len(simcat["ra"]) - len(rows)
            table, selected = measured_sources(
                {column: values[rows] for column, values in tractor.items()}, tan, name, options
            )
        table["brick"], table["rs"], table["label"] = brick, image.rs, CLASSES.index(name)
        counts[name].update(selected.removed)
        table = _on_image(table[selected.kept], tan, counts[name])
        result[name] = table[np.argsort(table["id"], kind="stable")]
    return result


def class_rows(
    name: str, tractor: dict[str, np.ndarray], simcat: dict[str, np.ndarray] | None
) -> np.ndarray:
    """Return the rows of a catalogue that belong to a class.

    fake: the nearest row to each injected galaxy, within 1 arcsec. real: rows without an injected
    galaxy within 1 arcsec (all rows, without a simcat). A row within 1 arcsec of an injected galaxy
    that is not its nearest row is in no class: it is a fragment or a blend.
    """
    n_rows = len(tractor["ra"])
    if simcat is None or not len(simcat["ra"]) or not n_rows:
        return np.arange(n_rows if name == "real" else 0)
    found, injected = ((columns["ra"], columns["dec"]) for columns in (tractor, simcat))
    if name == "fake":
        matched, nearest = nearest_within(*injected, *found, MATCH_ARCSEC)
        return np.unique(nearest[matched])
    matched, _ = nearest_within(*found, *injected, MATCH_ARCSEC)
    return np.flatnonzero(~matched)


def measured_sources(
    tractor: dict[str, np.ndarray], tan: Tan, name: str, options: Cutouts
) -> tuple[np.ndarray, selection.SelectedSources]:
    """Return the table rows of all catalogued sources, and the sources that the cuts keep."""
    bands = options.bands
    table = np.zeros(len(tractor["objid"]), survey.stamp_dtype(bands))
    table["id"], table["type"] = tractor["objid"], selection.morphology(tractor)
    table["ra"], table["dec"] = tractor["ra"], tractor["dec"]
    x, y = tan.pixel(tractor["ra"], tractor["dec"])
    known = np.isfinite(tractor["bx"]) & np.isfinite(tractor["by"])
    table["x"] = np.where(known, tractor["bx"], x)
    table["y"] = np.where(known, tractor["by"], y)
    table["r_half"] = selection.half_light_radius(tractor, bands)
    for band, magnitude in selection.corrected_magnitudes(tractor, bands).items():
        table[f"mag_{band}"], table[f"psfsize_{band}"] = magnitude, tractor[f"psfsize_{band}"]
    if options.cut == "both" or options.cut == name:
        limits = selection.Limits(colour_pad=options.colour_pad)
        return table, selection.select_measured(tractor, bands, limits)
    return table, selection.select_all(len(table))


def input_sources(
    simcat: dict[str, np.ndarray], tan: Tan, options: Cutouts
) -> tuple[np.ndarray, selection.SelectedSources]:
    """Return the table rows of injected galaxies with input values, and those that the cuts keep.

    Only the cuts on magnitude, colour and size apply. `type` is empty, `psfsize_*` are NaN.
    """
    bands = options.bands
    table = np.zeros(len(simcat["id"]), survey.stamp_dtype(bands))
    table["id"], table["ra"], table["dec"] = simcat["id"], simcat["ra"], simcat["dec"]
    table["x"], table["y"] = tan.pixel(simcat["ra"], simcat["dec"])
    table["r_half"] = simcat["rhalf"]
    magnitudes = selection.corrected_magnitudes(simcat, bands)
    for band in bands:
        table[f"mag_{band}"], table[f"psfsize_{band}"] = magnitudes[band], np.nan
    if options.cut == "both":
        limits = selection.Limits(colour_pad=options.colour_pad)
        return table, selection.select_input(magnitudes, table["r_half"], limits)
    return table, selection.select_all(len(table))


def _on_image(table: np.ndarray, tan: Tan, counts: Counter[str]) -> np.ndarray:
    """Return the sources whose centre is on the image, with `dx`, `dy` set."""
    placed = table[np.isfinite(table["x"]) & np.isfinite(table["y"])]
    cx, cy = centre_pixel(placed["x"], placed["y"])
    on = on_image(cx, cy, (tan.height, tan.width))
    kept = placed[on]
    kept["dx"], kept["dy"] = kept["x"] - cx[on], kept["y"] - cy[on]
    counts["off_image"] += len(table) - len(kept)
    return kept
