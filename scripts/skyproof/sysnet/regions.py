"""The parts of the sky of one run: where each one's table comes from, and what of it is used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import pydantic

from skyproof.core.options import Section, option

Contamination = Literal["none", "linear", "quadratic", "nonlinear"]


class MapForm(Section):
    """What a map's file leaves open. What it does say must agree."""

    column: str = option("", "column of a table; empty: its only one")
    ordering: Literal["", "RING", "NESTED"] = option("", "order of the pixels; empty: the file's")
    frame: Literal["", "C", "G", "E"] = option(
        "", "celestial, Galactic or ecliptic coordinates; empty: the file's"
    )
    nside: int = option(0, "HEALPix resolution; 0: the file's, or by its length", ge=0, le=8192)
    interpolate: bool = option(False, "to finer pixels: between centres, not copied")
    above: float | None = option(None, "leave out pixels where the map is not above this")


class MapFile(MapForm):
    """A map: its path, alone as text or with what the file leaves open."""

    path: str = option("", "the file")

    @property
    def form(self) -> dict[str, Any]:
        """What a configuration says beyond the path."""
        return self.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)


def _as_map(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


AMap = Annotated[MapFile, pydantic.BeforeValidator(_as_map)]
Form = Annotated[MapForm, pydantic.Field()]
Range = Annotated[tuple[float, float], pydantic.Field(description="(from, to)")]

_INPUTS = ("labels", "counts", "randoms", "mask")  # maps that are no templates


class Region(Section):
    """One part of the sky, with its own table, networks and verdict."""

    source: Literal["mock", "maps", "table"] = option(
        "mock", "where the table comes from: made here, HEALPix maps, or a table"
    )
    contamination: Contamination = option("nonlinear", "of a mock: the planted dependence")
    realisation: int = option(0, "of a mock: which sky", ge=0)
    table: list[str] = option([], "a table, or a table and a map of its labels")
    labels: AMap | None = option(None, "with one table: map of its labels, as a second file")
    counts: AMap | None = option(None, "map of galaxy counts: a path, or {path, ordering, ...}")
    randoms: AMap | None = option(None, "map of the observed fraction, or of randoms")
    templates: dict[str, AMap] = option(
        {},
        "maps of imaging properties, by name: a path, or {path, column, ordering, frame, nside, "
        "interpolate, above} with what the file leaves open",
    )
    names: list[str] = option([], "of a table's features, where it does not say them")
    nside: int = option(0, "HEALPix resolution of the table; 0: that of its file or counts", ge=0)
    ordering: Literal["", "RING", "NESTED"] = option("", "of a table that does not say it")
    frame: Literal["", "C", "G", "E"] = option(
        "", "celestial, Galactic or ecliptic; empty: that of the table's file or counts"
    )
    randoms_per_pixel: float = option(
        0.0, "randoms of a pixel observed in full; 0: the map holds fractions", ge=0
    )
    density_labels: bool = option(
        False, "labels are densities, already divided by fracgood; maps: write them so, mean 1"
    )
    mask: AMap | None = option(None, "map that is above 0 in the region")
    ra: Range | None = option(None, "right ascension, from west to east", unit="deg")
    dec: Range | None = option(None, "declination, from and to", unit="deg")
    gal_lat: Range | None = option(None, "Galactic latitude, from and to", unit="deg")
    min_abs_gal_lat: float = option(
        0.0, "least distance from the Galactic plane", unit="deg", ge=0, lt=90
    )
    start: list[str] = option([], "records of trained members to go on from (restore)")

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Region:
        needed = {"mock": (), "maps": ("counts", "templates"), "table": ("table",)}[self.source]
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"{name}: is needed with source: {self.source}")
        if len(self.table) > 2 or (self.labels and len(self.table) > 1):
            raise ValueError("table: expected a table, or a table and a map")
        for name in _INPUTS:
            if name in self.templates:
                raise ValueError(f"templates: {name!r} is taken; name the template otherwise")
        for name in ("dec", "gal_lat"):
            limits = getattr(self, name)
            if limits is not None and not -90 <= limits[0] < limits[1] <= 90:
                raise ValueError(f"{name}: expected (from, to) in -90 to 90, got {limits}")
        if self.ra is not None and not all(0 <= limit <= 360 for limit in self.ra):
            raise ValueError(f"ra: expected (from, to) in 0 to 360, got {self.ra}")
        return self

    @property
    def forms(self) -> dict[str, Any]:
        """What the configuration says of map files, by template or input."""
        maps = {name: getattr(self, name) for name in _INPUTS} | self.templates
        return {name: found.form for name, found in maps.items() if found and found.form}


def mock_regions() -> dict[str, Region]:
    """Return the two skies of the default run: the same in all but the contamination."""
    return {"contaminated": Region(), "clean": Region(contamination="none")}


# Names become folders, and words of rules: no separators, no wildcards, no capitals that differ.
_REGION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TAKEN = ("evaluate",)  # results/sysnet/evaluate is of all regions


def sound_names(regions: Iterable[str]) -> None:
    """Refuse (ValueError) names of regions that cannot be names of folders."""
    names = list(regions)
    for name in names:
        if not _REGION_NAME.fullmatch(name) or name.lower() in _TAKEN:
            raise ValueError(
                f"{name!r} is no name of a region; expected letters, digits, '_' and '-', "
                f"and none of {', '.join(_TAKEN)}"
            )
    if len({name.lower() for name in names}) < len(names):
        raise ValueError("names of regions must differ in more than capitals")
