"""The table of a region from maps and from tables of other layouts."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import fitsio
import healpy
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.core.formats import write
from skyproof.core.stage import Context
from skyproof.sysnet.options import Tabulate
from skyproof.sysnet.table import Table, read_table, write_table
from skyproof.sysnet.tabulate import run
from tests.conftest import one_line, skyproof
from tests.unit.sysnet.build.sky import sky_table

NSIDE = 16
N = 12 * NSIDE**2


def tabulate(folder: Path, *inputs: str, **options: object) -> Table:
    """Run the stage in this process and return its table."""
    given: dict[str, list[Path]] = {}
    for word in inputs:
        name, _, path = word.partition("=")
        given.setdefault(name, []).append(Path(path))
    named = {
        name: given.get(name, []) if form.many else (given.get(name) or [None])[0]
        for name, form in Tabulate.inputs.items()
    }
    out = folder / "table.fits"
    out.unlink(missing_ok=True)
    run(
        SimpleNamespace(**named), SimpleNamespace(table=out), Tabulate.model_validate(options),
        Context("sysnet.tabulate"),
    )  # fmt: skip
    return read_table(out)


def error_of(folder: Path, *inputs: str, **options: object) -> str:
    """Run the stage, which must fail and write nothing; return the error message."""
    with pytest.raises(InputError) as caught:
        tabulate(folder, *inputs, **options)
    assert not (folder / "table.fits").exists()
    return str(caught.value)


def test_the_command_writes_a_table_and_reports_errors_in_one_line(tmp_path: Path):
    write_table(tmp_path / "in.fits", sky_table())
    words = ["sysnet.tabulate", "--in", f"table={tmp_path}/in.fits", "--out",
             f"table={tmp_path}/out.fits"]  # fmt: skip
    done = skyproof(*words, "--min-fracgood", "0.5", "--dec", "[10,60]")
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "out.fits").read_bytes()
    same(tabulate(tmp_path, f"table={tmp_path}/in.fits", min_fracgood=0.5, dec=[10, 60]),
         read_table(tmp_path / "out.fits"))  # fmt: skip
    assert (tmp_path / "table.fits").read_bytes() == first
    (tmp_path / "out.fits").unlink()
    failed = skyproof(*words, "--dec", "[-89.9,-89.8]")
    assert failed.returncode == 3
    assert "leaves no pixel in the region" in one_line(failed)
    assert not list(tmp_path.glob("*out.fits*"))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts, randoms (fractions) and two templates of other frames and resolutions."""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(4)
    x, y, z = healpy.pix2vec(NSIDE, np.arange(N))
    fraction = np.clip(0.6 + 0.5 * x, 0, 1)
    healpy.write_map(folder / "c.fits", rng.poisson(9 * fraction), coord="C", dtype=np.float64)
    healpy.write_map(folder / "r.fits", fraction, coord="C", dtype=np.float64)
    stars = 2 + z
    stars[y > 0.9] = healpy.UNSEEN
    healpy.write_map(folder / "s.fits", stars, coord="C", dtype=np.float64)
    fine = healpy.pix2vec(32, np.arange(12 * 32**2), nest=True)
    np.save(folder / "d.npy", np.exp(-np.abs(fine[2])))
    return folder


DUST = {"d": {"ordering": "NESTED", "frame": "G"}}


def map_words(folder: Path) -> list[str]:
    return [f"counts={folder}/c.fits", f"randoms={folder}/r.fits", f"templates={folder}/s.fits",
            f"templates={folder}/d.npy"]  # fmt: skip


def test_maps_become_a_table(maps: Path, tmp_path: Path):
    table = tabulate(tmp_path, *map_words(maps), names=["s", "d"], forms=DUST)
    counts, fraction = healpy.read_map(maps / "c.fits"), healpy.read_map(maps / "r.fits")
    stars = healpy.read_map(maps / "s.fits")
    np.testing.assert_array_equal(
        table.hpix, np.flatnonzero((fraction > 0.1) & (stars != healpy.UNSEEN))
    )
    np.testing.assert_array_equal(table.label, counts[table.hpix])
    np.testing.assert_array_equal(table.fracgood, fraction[table.hpix])
    np.testing.assert_array_equal(table.features[:, 0], stars[table.hpix])
    lon, lat = healpy.pix2ang(NSIDE, table.hpix, lonlat=True)
    b = healpy.Rotator(coord="CG")(lon, lat, lonlat=True)[1]
    # Except at the crease of the disc, where the mean over a pixel is not the value at its centre.
    away = np.abs(b) > 10
    truth = np.exp(-np.abs(np.sin(np.deg2rad(b))))
    np.testing.assert_allclose(table.features[away, 1], truth[away], atol=0.01)
    assert (table.names, table.nside, table.frame, table.labels) == (("s", "d"), 16, "C", "counts")


def test_regions_are_cut_from_the_same_maps(maps: Path, tmp_path: Path):
    words = {"names": ["s", "d"], "forms": DUST}
    healpy.write_map(tmp_path / "m.fits", (np.arange(N) < N // 2).astype(float), coord="C",
                     dtype=np.float64)  # fmt: skip
    table = tabulate(
        tmp_path, *map_words(maps), f"mask={tmp_path}/m.fits", ra=[300, 60], dec=[-10, 80],
        min_abs_gal_lat=25, gal_lat=[-90, 0], **words,
    )  # fmt: skip
    ra, dec = healpy.pix2ang(NSIDE, table.hpix, lonlat=True)
    b = healpy.Rotator(coord="CG")(ra, dec, lonlat=True)[1]
    assert len(table) > 50
    assert ((ra >= 300) | (ra < 60)).all()
    assert (dec >= -10).all()
    assert (b <= -25).all()
    assert table.hpix.max() < N // 2
    line = error_of(tmp_path, *map_words(maps), ra=[10, 10.001], **words)
    assert "leaves no pixel in the region" in line


def test_coarser_tables_keep_the_galaxies(maps: Path, tmp_path: Path):
    table = tabulate(tmp_path, f"counts={maps}/c.fits", f"templates={maps}/d.npy", names=["d"],
                     forms=DUST, nside=8)  # fmt: skip
    assert table.label.sum() == healpy.read_map(maps / "c.fits").sum()
    assert (table.fracgood == 1).all()


def test_counts_of_randoms_need_their_density(maps: Path, tmp_path: Path):
    healpy.write_map(tmp_path / "n.fits", 40 * healpy.read_map(maps / "r.fits"), coord="C",
                     dtype=np.float64)  # fmt: skip
    words = [f"counts={maps}/c.fits", f"randoms={tmp_path}/n.fits", f"templates={maps}/d.npy"]
    line = error_of(tmp_path, *words, names=["d"], forms=DUST)
    assert "randoms_per_pixel" in line
    table = tabulate(tmp_path, *words, names=["d"], forms=DUST, randoms_per_pixel=40)
    np.testing.assert_allclose(table.fracgood, healpy.read_map(maps / "r.fits")[table.hpix])


def original(table: Table) -> np.ndarray:
    """Rows as the original's table has them, big-endian."""
    features = ("features", ">f8", (table.features.shape[1],))
    kind = [("label", ">f8"), ("hpix", ">i8"), features, ("fracgood", ">f8")]
    rows = np.zeros(len(table), kind)
    for name in rows.dtype.names:
        rows[name] = getattr(table, name)
    return rows


def same(found: Table, table: Table) -> None:
    for name in ("hpix", "label", "fracgood", "features"):
        np.testing.assert_array_equal(getattr(found, name), getattr(table, name), err_msg=name)


def write_layout(kind: str, path: Path, table: Table) -> None:
    rows = original(table)
    shuffled = rows[np.random.default_rng(5).permutation(len(rows))]
    columns = {"label": table.label, "hpix": table.hpix, "fracgood": table.fracgood}
    split = {name: table.features[:, i] for i, name in enumerate(table.names)}
    if kind == "original.fits":
        fitsio.write(str(path), shuffled)
    elif kind == "legacy.npy":
        legacy = shuffled.copy()
        legacy.dtype.names = ("label", "hpind", "features", "fracgood")
        parts = np.array_split(legacy, 5)
        folds = {f"fold{i}": part for i, part in enumerate(parts)}
        np.save(path, {"train": folds, "validation": folds, "test": folds}, allow_pickle=True)
    elif kind == "rows.npy":
        np.save(path, shuffled)
    elif kind == "columns.npz":
        np.savez(path, features=table.features, **columns)
    elif kind == "columns.parquet":
        write.parquet(path, columns | split)
    elif kind == "columns.h5":
        write.hdf5(path, columns | split, {"NSIDE": table.nside})
    else:
        write_table(path, table)


@pytest.mark.parametrize(
    "kind", ["original.fits", "legacy.npy", "rows.npy", "columns.npz", "columns.parquet",
             "columns.h5", "own.fits"],
)  # fmt: skip
def test_tables_of_other_layouts_are_the_same_table(tmp_path: Path, kind: str):
    table = sky_table()
    write_layout(kind, tmp_path / kind, table)
    found = tabulate(tmp_path, f"table={tmp_path}/{kind}")
    same(found, table)
    named = kind in ("columns.parquet", "columns.h5", "own.fits")
    assert found.names == (table.names if named else ("feature_0", "feature_1", "feature_2"))


def test_nested_tables_are_put_in_ring_order(tmp_path: Path):
    table = sky_table()
    rows = original(table)
    rows["hpix"] = healpy.ring2nest(NSIDE, table.hpix)
    fitsio.write(str(tmp_path / "n.fits"), rows, header={"NSIDE": NSIDE, "ORDERING": "NESTED"})
    same(tabulate(tmp_path, f"table={tmp_path}/n.fits"), table)


def test_a_pickle_executes_nothing(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(tmp_path / "b.npy", np.array({"train": Bomb()}, object), allow_pickle=True)
    assert b"mkdir" in (tmp_path / "b.npy").read_bytes()
    assert "contains more than data" in error_of(tmp_path, f"table={tmp_path}/b.npy")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Bomb()))  # the bomb is live: plain pickle sets it off
    assert (tmp_path / "executed").exists()


def test_labels_come_from_a_map(tmp_path: Path):
    table = sky_table()
    write_table(tmp_path / "t.fits", table)
    labels = np.arange(N) % 7 + 1.0
    healpy.write_map(tmp_path / "m.fits", labels, dtype=np.float64)
    found = tabulate(tmp_path, f"table={tmp_path}/t.fits", f"table={tmp_path}/m.fits")
    np.testing.assert_array_equal(found.label, labels[table.hpix])
    assert (found.fracgood == 1).all()
    labels[table.hpix[5]] = healpy.UNSEEN
    healpy.write_map(tmp_path / "u.fits", labels, dtype=np.float64)
    line = error_of(tmp_path, f"table={tmp_path}/t.fits", f"table={tmp_path}/u.fits")
    assert "pixel 5: is UNSEEN" in line


def test_densities_become_counts_again(tmp_path: Path):
    table = sky_table()
    write_table(tmp_path / "t.fits", table)
    found = tabulate(tmp_path, f"table={tmp_path}/t.fits", density_labels=True)
    np.testing.assert_array_equal(found.label, table.label * table.fracgood)


def test_scarcely_observed_pixels_are_left_out(tmp_path: Path):
    table = sky_table()
    write_table(tmp_path / "t.fits", table)
    found = tabulate(tmp_path, f"table={tmp_path}/t.fits", min_fracgood=0.5)
    np.testing.assert_array_equal(found.hpix, table.hpix[table.fracgood > 0.5])


def smooth_rows(nest: bool) -> np.ndarray:
    table = sky_table()
    table.features[:, 1] = healpy.pix2vec(NSIDE, table.hpix, nest=nest)[2]
    return original(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["features"].__setitem__((3, 2), np.nan), "field feature_2: is nan"),
        (lambda rows: rows["features"].__setitem__((slice(None), 1), 4.0), "feature_1: is 4 in"),
        (lambda rows: rows["fracgood"].__setitem__(3, 0), "field fracgood: is 0 in pixel 3"),
        (lambda rows: rows["label"].__setitem__(3, -2), "field label: is -2 in pixel 3"),
        (lambda rows: rows["hpix"].__setitem__(3, 4), "field hpix: 4 is repeated"),
        (lambda rows: rows["hpix"].__setitem__(3, N), "field hpix: is 3072"),
    ],
)
def test_bad_tables_are_errors_in_one_line(tmp_path: Path, change, message: str):
    rows = original(sky_table())
    change(rows)
    fitsio.write(str(tmp_path / "t.fits"), rows, header={"NSIDE": NSIDE})
    assert message in error_of(tmp_path, f"table={tmp_path}/t.fits")


def test_a_table_whose_features_contradict_its_order_is_an_error(tmp_path: Path):
    fitsio.write(str(tmp_path / "t.fits"), smooth_rows(nest=True),
                 header={"NSIDE": NSIDE, "ORDERING": "RING"})  # fmt: skip
    assert "smooth only if it is NESTED" in error_of(tmp_path, f"table={tmp_path}/t.fits")


def test_an_empty_table_is_an_error(tmp_path: Path):
    np.save(tmp_path / "t.npy", original(sky_table())[:0])
    assert "has no rows" in error_of(tmp_path, f"table={tmp_path}/t.npy")


@pytest.mark.real
def test_the_real_table_is_rebuilt_from_the_maps_beside_it(real_data: Path, tmp_path: Path):
    """Agreement with the published table: pixels, labels, fractions exact; templates as stated."""
    data = real_data / "sysnet"
    galactic = {"frame": "G"}
    templates = {
        "gaia": ("gaia_stardens_nside128_nested.fits", {"ordering": "NESTED", "frame": "C"}),
        "sdss": ("sdss_stars_nside256_nested.dat",
                 {"ordering": "NESTED", "frame": "C", "above": 0}),
        "sgr": ("sagittarius_stream_nside128_nested.npy",
                {"ordering": "NESTED", "frame": "C", "interpolate": True}),
        "sfd": ("dust_ebv_SFD_nside64_ring_galactic.fits", galactic),
        "planck": ("dust_ebv_Planck13_nside64_ring_galactic.fits", galactic),
        "hi4pi": ("h1_nh_HI4PI_nside64_ring_galactic.fits", galactic),
        "lab": ("h1_nh_LAB_nside64_ring_galactic.fits", galactic),
        "dl": ("h1_nh_DL_nside64_ring_galactic.fits", galactic),
    }  # fmt: skip
    forms = {name: form for name, (_, form) in templates.items()}
    found = tabulate(
        tmp_path, f"counts={data}/lrg_counts_nside256_ring.fits",
        f"randoms={data}/lrg_randoms_nside256_ring.fits",
        *(f"templates={data}/{name}" for name, _ in templates.values()), names=list(templates),
        forms=forms | {"counts": {"frame": "C"}, "randoms": {"frame": "C"}},
        min_fracgood=0.2, density_labels=True,
    )  # fmt: skip
    given = fitsio.read(str(data / "decals_lrg_table_nside256_ring.fits"), ext=1)
    np.testing.assert_array_equal(found.hpix, given["hpix"])
    np.testing.assert_array_equal(found.label, given["label"])
    np.testing.assert_array_equal(found.fracgood, given["fracgood"])
    scatter = given["features"].std(axis=0)
    worst = np.abs(found.features - given["features"]).max(axis=0) / scatter
    # Measured, in units of each column's scatter: gaia, sdss 0; sgr 1.4e-15; sfd 3.0e-5, planck
    # 2.8e-5, hi4pi 1.9e-5, lab 1.7e-5, dl 1.8e-5 (another realisation of the Galactic frame).
    assert (worst[:2] == 0).all()
    assert worst[2] < 1e-12
    assert (worst[3:] < 1e-4).all()
