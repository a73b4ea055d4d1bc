"""Tables from maps and from tables of other layouts: the right value in the right pixel."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import fitsio
import h5py
import healpy
import numpy as np
import pytest

from skyproof.core import products
from skyproof.core.errors import InputError, UsageError
from skyproof.core.stage import Context
from skyproof.sysnet import tabulate
from skyproof.sysnet.maps import read_map, values_at
from skyproof.sysnet.options import Tabulate
from skyproof.sysnet.table import Table, read_table
from tests.conftest import skyproof

NSIDE = 16
N = 12 * NSIDE**2


def made(folder: Path, *, table: list[Path] | None = None, **given: object) -> Table:
    """Run the stage; files by input name, options by theirs."""
    files = {name: given.pop(name, None) for name in ("counts", "randoms", "templates")}
    context = Context("sysnet.tabulate", log=logging.getLogger("test"))
    inputs = SimpleNamespace(table=table or [], **files | {"templates": files["templates"] or []})
    out = folder / "table.fits"
    out.unlink(missing_ok=True)
    tabulate.run(inputs, SimpleNamespace(table=out), Tabulate(**given), context)
    return read_table(out)


def write_map(path: Path, values: np.ndarray, **cards: object) -> Path:
    header = {"NSIDE": healpy.npix2nside(len(values)), **cards}
    products.write_fits_table(path, {"I": values.astype("f4")}, header=header)
    return path


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """A sky of one to five galaxies a pixel, half of it unseen."""
    values = 1 + np.arange(N) % 5.0
    values[N // 2 :] = healpy.UNSEEN
    return write_map(tmp_path / "counts.fits", values, ORDERING="RING", COORDSYS="C")


def latitude(nside: int, frame: str) -> np.ndarray:
    """Return the sine of the Galactic latitude of pixels of a frame, RING: known everywhere."""
    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    if frame != "G":
        lon, lat = healpy.Rotator(coord=[frame, "G"])(lon, lat, lonlat=True)
    return np.sin(np.radians(lat))


def test_orderings_frames_and_resolutions_meet_in_the_pixels_of_the_counts(counts, tmp_path):
    nested = healpy.reorder(latitude(64, "C"), r2n=True)
    np.save(tmp_path / "nested.npy", nested)
    np.savetxt(tmp_path / "coarse.txt", latitude(8, "C"))
    galactic = write_map(tmp_path / "g.fits", latitude(64, "G"), ORDERING="RING", COORDSYS="G")
    randoms = write_map(tmp_path / "r.fits", np.linspace(0, 1, N), ORDERING="RING")
    table = made(
        tmp_path, counts=counts, randoms=randoms,
        templates=[tmp_path / "nested.npy", galactic, tmp_path / "coarse.txt"],
        names=["fine", "rotated", "coarse"], ordering={"fine": "NESTED", "coarse": "RING"},
        min_fracgood=0.2,
    )  # fmt: skip
    assert (table.nside, table.frame, table.labels) == (NSIDE, "C", "counts")
    assert table.names == ("fine", "rotated", "coarse")
    expected = np.flatnonzero((np.arange(N) < N // 2) & (np.linspace(0, 1, N) > 0.2))
    assert table.hpix.tolist() == expected.tolist()
    assert table.label.tolist() == (1 + expected % 5).tolist()
    truth = latitude(NSIDE, "C")[table.hpix]
    # Measured 0.002, 0.001 and 0.08: means of finer pixels, interpolation, repeated coarser ones.
    for column, most in ((0, 0.004), (1, 0.004), (2, 0.12)):
        assert np.abs(table.features[:, column] - truth).max() < most


def test_a_map_with_pixel_numbers_covers_a_part(tmp_path):
    path = tmp_path / "part.fits"
    data = {"HPXPIXEL": np.array([7, 3, N - 1]), "STARS": np.array([70.0, 30.0, 5.0])}
    products.write_fits_table(path, data)
    sky = read_map(path, ordering="RING")
    assert sky.nside == NSIDE
    found = values_at(sky, np.array([3, 4, 7]), NSIDE, "C")
    np.testing.assert_array_equal(found, [30.0, np.nan, 70.0])


def test_what_header_and_configuration_say_must_agree(counts, tmp_path):
    with pytest.raises(InputError, match=r"ORDERING: is RING in the header and NESTED in"):
        read_map(counts, ordering="NESTED")
    with pytest.raises(InputError, match=r"COORDSYS: is C in the header and G in"):
        read_map(counts, frame="G")
    np.save(tmp_path / "a.npy", np.zeros(N))
    with pytest.raises(InputError, match="ORDERING: is not stated; expected RING or NESTED"):
        read_map(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"", "cannot be read"),
        ("a.fits", b"SIMPLE", "cannot be read"),
        ("a.txt", b"1 2 x", "cannot be read"),
        ("a.txt", b"1 2 3", "has 3 pixels; expected 12 nside"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_map(tmp_path / name, ordering="RING")
    assert name in str(caught.value)


def test_a_pixel_twice_is_refused(tmp_path):
    data = {"PIXEL": np.array([3, 3]), "X": np.array([1.0, 2.0])}
    products.write_fits_table(tmp_path / "a.fits", data)
    with pytest.raises(InputError, match="PIXEL: holds a pixel twice"):
        read_map(tmp_path / "a.fits", ordering="RING")


def test_maps_that_do_not_meet_are_refused(counts, tmp_path):
    southern = np.full(N, np.nan)
    southern[N // 2 :] = 1.0
    other = write_map(tmp_path / "b.fits", southern, ORDERING="RING")
    with pytest.raises(InputError, match="shares no pixel"):
        made(tmp_path, counts=counts, templates=[other], names=["b"])
    with pytest.raises(UsageError, match="a name for each"):
        made(tmp_path, counts=counts, templates=[other])


def rows(n: int = 40) -> np.ndarray:
    """Return rows of the original's table, in no order."""
    draw = np.random.default_rng(1)
    data = np.zeros(
        n, [("label", ">f8"), ("hpix", ">i8"), ("features", ">f8", (3,)), ("fracgood", ">f8")]
    )
    data["hpix"] = draw.permutation(n) * 2 + 500
    data["label"] = draw.poisson(3, n)
    data["features"] = draw.normal(size=(n, 3))
    data["fracgood"] = draw.uniform(0.3, 1, n)
    return data


def written(folder: Path, form: str, data: np.ndarray) -> Path:
    """Write rows in one of the layouts that users have."""
    path = folder / f"input.{form}"
    columns = {name: data[name].astype(data[name].dtype.newbyteorder("<"))
               for name in ("label", "hpix", "fracgood")}  # fmt: skip
    columns |= {f"t{i}": data["features"][:, i].astype("<f8") for i in range(3)}
    if form == "fits":
        fitsio.write(path, data)
    elif form == "npy":
        folds = {f"fold{i}": part for i, part in enumerate(np.array_split(data, 5))}
        content = {"train": folds, "validation": folds, "test": folds}
        np.save(path, np.array(content, dtype=object), allow_pickle=True)
    elif form == "parquet":
        products.write_parquet(path, columns)
    elif form == "npz":
        np.savez(path, **columns)
    else:
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[name] = values
    return path


@pytest.mark.parametrize("form", ["fits", "npy", "parquet", "npz", "hdf5"])
def test_tables_of_other_layouts_are_read(tmp_path, form):
    """s07."""
    data = np.sort(rows(), order="hpix")
    table = made(tmp_path, table=[written(tmp_path, form, rows())], nside=NSIDE)
    assert table.nside == NSIDE
    assert table.hpix.tolist() == data["hpix"].tolist()
    assert table.label.tolist() == data["label"].tolist()
    assert table.fracgood.tolist() == data["fracgood"].tolist()
    np.testing.assert_array_equal(table.features, data["features"])
    assert len(set(table.names)) == 3


def test_a_table_with_a_map_takes_its_labels(tmp_path):
    path = written(tmp_path, "fits", rows())
    values = np.arange(N) / N
    sky = write_map(tmp_path / "map.fits", values, ORDERING="RING")
    table = made(tmp_path, table=[path, sky], nside=NSIDE)
    assert table.label == pytest.approx(table.hpix / N)
    assert set(table.fracgood) == {1.0}
    assert table.labels == "density"
    values[table.hpix[3]] = healpy.UNSEEN
    write_map(tmp_path / "map2.fits", values, ORDERING="RING")
    with pytest.raises(InputError, match=rf"is nan in pixel {table.hpix[3]}"):
        made(tmp_path, table=[path, tmp_path / "map2.fits"], nside=NSIDE)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def test_a_pickle_is_not_executed(tmp_path):
    np.save(tmp_path / "a.npy", np.array({"test": Trap()}, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy"):
        made(tmp_path, table=[tmp_path / "a.npy"])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ({"label": -1.0}, "field label: is -1"),
        ({"label": np.nan}, "field label: is nan"),
        ({"hpix": 5000}, "field hpix: is 5000"),
        ({"hpix": 502}, "502 stands there twice"),
        ({"features": np.inf}, "is inf in pixel"),
    ],
)
def test_bad_rows_are_refused_and_named(tmp_path, harm, message):
    data = rows()
    row = int(np.flatnonzero(data["hpix"] != 502)[0])
    for name, value in harm.items():
        data[name][row] = value
    path = written(tmp_path, "fits", data)
    out = tmp_path / "out.fits"
    result = skyproof(
        "sysnet.tabulate", "--in", f"table={path}", "--out", f"table={out}", "--nside", "16"
    )
    assert result.returncode == 3
    assert message in result.stderr
    assert not out.exists()


@pytest.mark.real
def test_the_real_table_is_rebuilt_from_its_maps(real_data, tmp_path):
    """The table beside the maps holds densities, in the pixels with SDSS stars."""
    folder = real_data / "sysnet"
    dust = ("ebv_SFD", "ebv_Planck13")
    gas = ("HI4PI", "LAB", "DL")
    templates = {
        "gaia": folder / "gaia_stardens_nside128_nested.fits",
        "sdss": folder / "sdss_stars_nside256_nested.dat",
        "stream": folder / "sagittarius_stream_nside128_nested.npy",
        **{name: folder / f"dust_{name}_nside64_ring_galactic.fits" for name in dust},
        **{name: folder / f"h1_nh_{name}_nside64_ring_galactic.fits" for name in gas},
    }
    table = made(
        tmp_path,
        counts=folder / "lrg_counts_nside256_ring.fits",
        randoms=folder / "lrg_randoms_nside256_ring.fits",
        templates=list(templates.values()),
        names=list(templates),
        ordering=dict.fromkeys(("gaia", "sdss", "stream"), "NESTED"),
        frame=dict.fromkeys((*dust, *gas), "G"),
        min_fracgood=0.2,
    )
    given = np.sort(fitsio.read(folder / "decals_lrg_table_nside256_ring.fits"), order="hpix")
    there = table.features[:, 1] > 0
    assert table.hpix[there].tolist() == given["hpix"].tolist()
    np.testing.assert_array_equal(table.fracgood[there], given["fracgood"])
    seen = given["label"] > 0
    ratio = given["label"][seen] * table.fracgood[there][seen] / table.label[there][seen]
    assert np.ptp(ratio) < 1e-12  # the same density, in another unit
    # Measured: 9e-6 at most, where the dust and gas maps are rotated; else equal. The stream was
    # interpolated between its coarser pixels there, and is repeated here.
    stream = list(templates).index("stream")
    others = [i for i in range(len(templates)) if i != stream]
    np.testing.assert_allclose(
        table.features[there][:, others], given["features"][:, others], rtol=1e-5
    )
    pair = table.features[there, stream], given["features"][:, stream]
    assert np.corrcoef(*pair)[0, 1] > 0.98
