"""Regions of the sky: the source of each region's table, and the cuts applied to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import pydantic

from skyproof.core.options import Section, option

Contamination = Literal["none", "linear", "quadratic", "nonlinear"]


class MapForm(Section):
    """Properties of a map, for those missing from its file. Properties in the file must agree."""

    column: str = option("", "column of a table; empty: its only column")
    ordering: Literal["", "RING", "NESTED"] = option("", "pixel ordering; empty: as in the file")
    frame: Literal["", "C", "G", "E"] = option(
        "", "coordinates: celestial, Galactic or ecliptic; empty: as in the file"
    )
    nside: int = option(0, "HEALPix nside; 0: as in the file, or from its length", ge=0, le=8192)
    interpolate: bool = option(False, "interpolate to finer pixels instead of copying")
    above: float | None = option(None, "exclude pixels where the map is not above this value")


class MapFile(MapForm):
    """A map: its path, or a path with the properties that the file does not state."""

    path: str = option("", "path of the file")

    @property
    def form(self) -> dict[str, Any]:
        """Return the properties that are set, without the path."""
        return self.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)


def _as_map(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


MapOption = Annotated[
    MapFile, pydantic.BeforeValidator(_as_map, json_schema_input_type=str | MapFile)
]
GivenForm = Annotated[MapForm, pydantic.Field()]
Range = Annotated[tuple[float, float], pydantic.Field(description="(from, to)")]

_INPUTS = ("labels", "counts", "randoms", "mask")  # maps that are not templates


class Region(Section):
    """A region of the sky, with its own table, networks and verdict."""

    source: Literal["mock", "maps", "table"] = option(
        "mock", "source of the table: a mock sky, HEALPix maps, or a table"
    )
    contamination: Contamination = option(
        "nonlinear", "mock: planted dependence of the density on the templates"
    )
    realisation: int = option(0, "mock: number of the sky", ge=0)
    table: list[str] = option([], "path of the table, or of a table and a map of its labels")
    labels: MapOption | None = option(None, "map of the labels of the table")
    counts: MapOption | None = option(
        None, "map of galaxy counts: a path, or {path, ordering, ...}"
    )
    randoms: MapOption | None = option(None, "map of the observed fraction, or of randoms")
    templates: dict[str, MapOption] = option(
        {},
        "maps of imaging properties by name: a path, or {path, column, ordering, frame, nside, "
        "interpolate, above} where the file does not state these",
    )
    names: list[str] = option([], "names of the features, if the table does not have them")
    nside: int = option(0, "HEALPix nside of the table; 0: that of its file or counts", ge=0)
    ordering: Literal["", "RING", "NESTED"] = option(
        "", "pixel ordering of the table; empty: as in its header"
    )
    frame: Literal["", "C", "G", "E"] = option(
        "",
        "coordinates of the table: celestial, Galactic or ecliptic; empty: as its file or counts",
    )
    randoms_per_pixel: float = option(
        0.0, "randoms per fully observed pixel; 0: the map holds fractions", ge=0
    )
    density_labels: bool = option(
        False, "labels are densities, divided by fracgood; of maps: with mean 1"
    )
    mask: MapOption | None = option(None, "map, positive inside the region")
    ra: Range | None = option(None, "right ascension, from west to east", unit="deg")
    dec: Range | None = option(None, "declination, from and to", unit="deg")
    gal_lat: Range | None = option(None, "Galactic latitude, from and to", unit="deg")
    min_abs_gal_lat: float = option(
        0.0, "minimum absolute Galactic latitude", unit="deg", ge=0, lt=90
    )
    start: list[str] = option([], "block indexes of trained networks to start from")

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Region:
        needed = {"mock": (), "maps": ("counts", "templates"), "table": ("table",)}[self.source]
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"{name}: is required with source: {self.source}")
        if len(self.table) > 2 or (self.labels and len(self.table) > 1):
            raise ValueError("table: expected a table, or a table and a map")
        for name in _INPUTS:
            if name in self.templates:
                raise ValueError(f"templates: {name!r} is reserved; expected another name")
        for name in ("dec", "gal_lat"):
            limits = getattr(self, name)
            if limits is not None and not -90 <= limits[0] < limits[1] <= 90:
                raise ValueError(f"{name}: expected (from, to) in -90 to 90, got {limits}")
        if self.ra is not None and not all(0 <= limit <= 360 for limit in self.ra):
            raise ValueError(f"ra: expected (from, to) in 0 to 360, got {self.ra}")
        return self

    @property
    def forms(self) -> dict[str, Any]:
        """Return the properties set for map files, by template or input."""
        maps = {name: getattr(self, name) for name in _INPUTS} | self.templates
        return {name: found.form for name, found in maps.items() if found and found.form}


def mock_regions() -> dict[str, Region]:
    """Return the two mock skies of the default run; they differ only in the contamination."""
    return {"contaminated": Region(), "clean": Region(contamination="none")}


# Names become folders and wildcards: no separators, and unique when case is ignored.
_REGION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = ("summarise",)  # results/sysnet/summarise/ has the summary of all regions


def check_region_names(regions: Iterable[str]) -> None:
    """Raise ValueError for names of regions that cannot be names of folders."""
    names = list(regions)
    for name in names:
        if not _REGION_NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise ValueError(
                f"{name!r} is not a valid name of a region; expected letters, digits, '_' and "
                f"'-', and none of {', '.join(_RESERVED)}"
            )
    if len({name.lower() for name in names}) < len(names):
        raise ValueError("names of regions must differ in more than upper and lower case")
