"""Cutting stamps out of bricks: tiny trees in the survey's layout, whole and broken."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import fitsio
import numpy as np
import pytest

from skyproof.core import products, records
from skyproof.core.errors import InputError
from skyproof.core.stage import Context
from skyproof.obiwan import cutouts, survey
from skyproof.obiwan.options import Cutouts
from skyproof.obiwan.sources import class_rows
from skyproof.obiwan.stamps import read_stamps
from tests.conftest import one_line, skyproof, tree_bytes

PIXELS = 160
BRICK = "1211p060"
NAMES = survey.brick_names(6)
SOURCES = [(40.3, 50.7), (80.0, 90.5), (120.2, 60.9), (100.1, 120.4), (5.0, 80.0), (158.7, 158.7)]
# x, y of both classes: the first four lie inside, the last two at the edge.


def tan_of(brick: str) -> survey.Tan:
    return dict(survey.synthetic_bricks(len(NAMES), PIXELS))[brick]


def pixel_names(band: int, rs: int = 0) -> np.ndarray:
    """Values that name band and pixel: 1e6 band + 1000 y + x, plus the realisation's quarter."""
    y, x = np.mgrid[:PIXELS, :PIXELS]
    return (1e6 * band + 1000 * y + x + 0.25 * rs).astype("f4")


def write_brick(
    root: Path,
    brick: str = BRICK,
    rs: str = "rs0",
    bands: str = "grz",
    real: list[tuple[float, float]] = SOURCES,
    fake: list[tuple[float, float]] = SOURCES,
) -> None:
    """Write one image of a brick; injected sources lie 12 pixels (3.1 arcsec) beside the real."""
    tan = tan_of(brick)
    for index, band in enumerate(bands):
        write_plane(root, "image", band, pixel_names(index, int(rs[2:] or 0)), brick, rs)
        ivar = np.full((PIXELS, PIXELS), 100.0 * (index + 1), "f4")
        write_plane(root, "invvar", band, ivar, brick, rs)
    fake = [(beside(x), y) for x, y in fake]
    places = [*real, *fake]
    x, y = (np.array(axis, float) for axis in zip(*places, strict=True)) if places else ([], [])
    ra, dec = tan.sky(x, y)
    n = len(places)
    measured: dict[str, np.ndarray] = {
        "objid": np.arange(n, dtype="i4")[::-1], "type": np.full(n, "EXP", "S4"),
        "ra": ra, "dec": dec, "bx": np.array(x, "f4"), "by": np.array(y, "f4"),
        "brick_primary": np.ones(n, bool),
        "shapeexp_r": np.full(n, 0.5, "f4"), "shapedev_r": np.zeros(n, "f4"),
    }  # fmt: skip
    simcat = {"id": 900 + np.arange(len(fake)), "ra": ra[len(real) :], "dec": dec[len(real) :]}
    simcat["rhalf"] = np.full(len(fake), 0.4, "f4")
    for band, mag in zip(bands, (22.3, 21.9, 21.2), strict=False):
        flux = np.full(n, 10 ** (0.4 * (22.5 - mag)), "f4")
        measured |= {f"flux_{band}": flux, f"flux_ivar_{band}": np.full(n, 100, "f4")}
        measured |= {f"mw_transmission_{band}": np.ones(n, "f4"), f"nobs_{band}": np.ones(n, "i2")}
        measured |= {f"psfsize_{band}": np.full(n, 1.3, "f4")}
        simcat |= {f"{band}flux": flux[len(real) :] * np.float32(1.1)}
    write_table(survey_file(root, "tractor", brick, rs), measured)
    write_table(survey.simcat_path(root, brick, rs), simcat)
    write_table(survey.ccds_path(root, brick, rs), {"expnum": np.array([1])})


def beside(x: float) -> float:
    return x - 12 if x >= 12 else x + 12


def survey_file(root: Path, kind: str, brick: str = BRICK, rs: str = "rs0") -> Path:
    """The realisation's own Tractor catalogue, whether it is there or not."""
    assert kind == "tractor"
    return root / "tractor" / brick[:3] / brick / rs / f"tractor-{brick}.fits"


def write_plane(root, kind, band, pixels, brick=BRICK, rs="rs0") -> Path:
    path = survey.image_path(root, brick, kind, band, rs)
    path.parent.mkdir(parents=True, exist_ok=True)
    cards = tan_of(brick).cards()
    products.write_fits_image(path, pixels, header=cards, compress="GZIP_2")
    return path


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    products.write_fits_table(path, columns)


def listed(root: Path, *bricks: str) -> Path:
    path = root / "bricks.txt"
    path.write_text("# bricks\n" + "\n".join(bricks or [BRICK]) + "\n")
    return path


def run(
    root: Path, out: Path, bricks: Path | None = None, recipe: str = "a", **options: object
) -> dict[str, dict]:
    """Run the stage in this process; return the record's items."""
    inputs = SimpleNamespace(bricks=bricks or listed(root), real=None, fake=None)
    if "real" in options:
        inputs.real = options.pop("real")
    out.mkdir(exist_ok=True)
    record = out / "block.json"
    context = Context(stage="obiwan.cutouts", recipe=recipe)
    cutouts.run(inputs, SimpleNamespace(cutouts=record), Cutouts(**options), context)
    return json.loads(record.read_text())["items"]


def read(out: Path, kind: str, suffix: str = "", brick: str = BRICK, bands: str = "grz"):
    return read_stamps(out / kind / "hdf5" / brick[:3] / brick / f"img_ivar_{bands}{suffix}.hdf5")


@pytest.fixture
def root(tmp_path) -> Path:
    write_brick(tmp_path)
    return tmp_path


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "cutouts"


def test_o02_the_layout_of_a_brick(root, out):
    items = run(root, out)
    names = ["img_ivar_grz.hdf5", "img_ivar_grz_onedge.hdf5", "sorted_ids.fits"]
    expected = [f"{kind}/hdf5/121/{BRICK}/{name}" for kind in ("fake", "real") for name in names]
    assert [entry["path"] for entry in items[BRICK]["files"]] == expected
    assert sorted(name for name in tree_bytes(out) if "/" in name) == expected
    item = records.read_record(out / "block.json")[0]
    assert len(item.paths) == 6


def test_every_stamp_has_its_own_pixels_and_values(root, out):
    info = run(root, out)[BRICK]["info"]
    assert (info["n_real"], info["n_onedge_real"]) == (4, 2)
    # The injected source at x = 28.3 lies at the edge too.
    assert (info["n_fake"], info["n_onedge_fake"]) == (3, 3)
    for label, kind in enumerate(("real", "fake")):
        img, ivar, table = read(out, kind)
        assert img.dtype == ivar.dtype == np.float32
        assert img.shape == (len(table), 64, 64, 3)
        assert table.dtype == survey.stamp_dtype("grz")
        assert (table["label"] == label).all()
        assert (np.diff(table["id"]) > 0).all()
        for row, source in enumerate(table):
            cx, cy = math.floor(source["x"] + 0.5), math.floor(source["y"] + 0.5)
            for band in range(3):
                stamp = pixel_names(band)[cy - 32 : cy + 32, cx - 32 : cx + 32].T
                np.testing.assert_array_equal(img[row, ..., band], stamp)
                assert (ivar[row, ..., band] == 100 * (band + 1)).all()
            assert abs(source["dx"] - (source["x"] - cx)) < 1e-5
            assert -0.5 <= source["dx"] < 0.5
        assert (table["brick"] == BRICK.encode()).all()
        assert (table["rs"] == b"rs0").all()
        assert (table["type"] == b"EXP").all()
        assert table["ivar_r"].tolist() == [200.0] * len(table)
        np.testing.assert_allclose(table["mag_g"], 22.3, atol=1e-5)
        np.testing.assert_allclose(table["r_half"], 0.5)
        np.testing.assert_allclose(table["psfsize_z"], 1.3)
        ra, dec = tan_of(BRICK).sky(table["x"], table["y"])
        np.testing.assert_allclose(table["ra"], ra, atol=1e-8)
        np.testing.assert_allclose(table["dec"], dec, atol=1e-8)
    real, fake = (
        np.concatenate([read(out, kind, s)[2]["x"] for s in ("", "_onedge")])
        for kind in ("real", "fake")
    )
    np.testing.assert_allclose(np.sort(real), sorted(x for x, _ in SOURCES), atol=1e-4)
    np.testing.assert_allclose(np.sort(fake), sorted(beside(x) for x, _ in SOURCES), atol=1e-4)


def test_o03_edge_stamps_are_apart_and_their_bands_distinct(root, out):
    """B9: in the original all bands of a stamp at the edge added up in one image, 65 x 65."""
    run(root, out)
    img, ivar, table = read(out, "real", "_onedge")
    assert img.shape == (2, 64, 64, 3)
    for row, source in enumerate(table):
        cx, cy = math.floor(source["x"] + 0.5), math.floor(source["y"] + 0.5)
        for band in range(3):
            padded = np.pad(pixel_names(band), 64)
            expected = padded[cy + 32 : cy + 96, cx + 32 : cx + 96].T
            np.testing.assert_array_equal(img[row, ..., band], expected)
            outside = np.pad(np.ones((PIXELS, PIXELS)), 64)[cy + 32 : cy + 96, cx + 32 : cx + 96].T
            np.testing.assert_array_equal(ivar[row, ..., band], 100 * (band + 1) * outside)
        assert len(np.unique(img[row].max(axis=(0, 1)))) == 3


def test_o04_a_rerun_keeps_finished_bricks_and_redoes_a_corrupt_file(root, out, monkeypatch):
    write_brick(root, NAMES[1])
    bricks = listed(root, *NAMES[:2])
    first = run(root, out, bricks)
    before = tree_bytes(out)
    cut: list[str] = []
    original = cutouts.plan

    def counting(image, brick, options):
        cut.append(brick)
        return original(image, brick, options)

    monkeypatch.setattr(cutouts, "plan", counting)
    assert run(root, out, bricks) == first
    assert cut == []
    damaged = out / "fake" / "hdf5" / BRICK[:3] / BRICK / "img_ivar_grz.hdf5"
    content = bytearray(damaged.read_bytes())
    content[-1000] ^= 1
    damaged.write_bytes(content)
    assert run(root, out, bricks) == first
    assert cut == [BRICK]
    assert tree_bytes(out) == before
    run(root, out, bricks, recipe="another")
    assert cut == [BRICK, *NAMES[:2]]


def test_each_plane_is_decompressed_once(root, out, monkeypatch):
    seen: list[str] = []
    original = survey.read_plane

    def counting(path, shape=None):
        seen.append(Path(path).name)
        return original(path, shape)

    monkeypatch.setattr(survey, "read_plane", counting)
    run(root, out)
    assert len(seen) == len(set(seen)) == 6


def test_realisations_give_new_injected_sources_but_real_ones_once(root, out):
    write_brick(root, rs="rs1", fake=SOURCES[:3])
    info = run(root, out)[BRICK]["info"]
    assert (info["n_real"], info["n_onedge_real"]) == (4, 2)
    assert (info["n_fake"], info["n_onedge_fake"]) == (3 + 2, 3 + 1)
    img, _, table = read(out, "fake")
    assert table["rs"].tolist() == [b"rs0"] * 3 + [b"rs1"] * 2
    np.testing.assert_array_equal(np.lexsort((table["id"], table["rs"])), np.arange(5))
    assert (img[:, 0, 0, 0] % 1).tolist() == [0, 0, 0, 0.25, 0.25]  # each from its own image
    assert set(read(out, "real")[2]["rs"]) == {b"rs0"}
    ids = fitsio.read(out / f"fake/hdf5/121/{BRICK}/sorted_ids.fits")
    assert len(ids) == 5  # B16: the original's last realisation overwrote the others


def test_real_sources_near_injected_ones_are_neither(root, out):
    """A catalogued piece 0.5 arcsec from an injected galaxy belongs to no class."""
    path = survey_file(root, "tractor")
    rows = fitsio.read(path)
    piece = rows[-6:-5].copy()  # the first injected one: 0.5 arcsec beside it
    piece["ra"] += 0.5 / 3600 / math.cos(math.radians(6))
    piece["objid"] = 77
    write_table(path, np.concatenate([rows, piece]))
    info = run(root, out)[BRICK]["info"]
    assert info["n_real"] + info["n_onedge_real"] == 6
    assert info["n_fake"] + info["n_onedge_fake"] == 6
    assert info["removed_real"]["near_injected"] == 7
    assert info["removed_fake"]["not_found"] == 0


def test_matching_across_zero_hours_and_near_the_pole():
    tractor = {
        "ra": np.array([0.0001, 180.0, 10.0, 200.0]),
        "dec": np.array([0.0, 89.99999, 5.0, -30.0]),
    }
    simcat = {
        "ra": np.array([359.99995, 0.0, 10.001]),  # 0.54 arcsec; 0.07 over the pole; 3.6 away
        "dec": np.array([0.0, 89.99999, 5.0]),
    }
    assert class_rows("fake", tractor, simcat).tolist() == [0, 1]
    assert class_rows("real", tractor, simcat).tolist() == [2, 3]
    none = {name: values[:0] for name, values in simcat.items()}
    assert class_rows("real", tractor, none).tolist() == [0, 1, 2, 3]
    assert class_rows("fake", tractor, none).tolist() == []
    assert class_rows("fake", none, simcat).tolist() == []
    assert class_rows("real", none, simcat).tolist() == []


def test_the_original_way_release_images_and_input_values(tmp_path, out):
    """real_images: release, fake_values: input, cut: real, layout: original; two trees."""
    release, injected = tmp_path / "release", tmp_path / "injected"
    write_brick(release, rs="", fake=[])
    write_brick(injected, rs="rs0")
    survey_file(injected, "tractor").unlink()  # not needed
    options = {"real_images": "release", "fake_values": "input", "cut": "real"}
    options |= {"layout": "original", "jpeg": True}
    info = run(injected, out, real=release, **options)[BRICK]["info"]
    assert (info["n_real"], info["n_fake"]) == (4, 3)
    _, _, table = read(out, "real")
    assert set(table["rs"]) == {b""}
    _, _, table = read(out, "fake")
    assert (table["id"] >= 900).all()
    assert (table["type"] == b"").all()
    np.testing.assert_allclose(table["mag_g"], 22.3 - 2.5 * math.log10(1.1), atol=1e-5)
    np.testing.assert_allclose(table["r_half"], 0.4)
    x, _ = tan_of(BRICK).pixel(table["ra"], table["dec"])
    np.testing.assert_allclose(table["x"], x)
    assert (out / f"fake/hdf5/121/{BRICK}/jpeg_grz.hdf5").is_file()


def test_cuts_apply_to_the_classes_asked_for(root, out):
    """B17: in the original the injected class had no cuts."""
    path = survey_file(root, "tractor")
    rows = fitsio.read(path)
    rows["type"] = "COMP"
    write_table(path, rows)
    for cut, n_real, n_fake in (("both", 0, 0), ("real", 0, 3), ("none", 4, 3)):
        info = run(root, out, recipe=cut, cut=cut)[BRICK]["info"]
        assert (info["n_real"], info["n_fake"]) == (n_real, n_fake)
        assert info["removed_real"].get("type", 0) == (0 if cut == "none" else 6)


def test_positions_come_from_the_sky_where_the_catalogue_has_no_pixels(root, out):
    path = survey_file(root, "tractor")
    rows = fitsio.read(path)
    names = [name for name in rows.dtype.names if name not in ("bx", "by", "brick_primary")]
    write_table(path, {name: rows[name] for name in names})
    run(root, out)
    x = np.concatenate([read(out, "real", suffix)[2]["x"] for suffix in ("", "_onedge")])
    np.testing.assert_allclose(np.sort(x), sorted(x for x, _ in SOURCES), atol=1e-6)


def test_sources_off_the_image_are_counted(root, out):
    path = survey_file(root, "tractor")
    rows = fitsio.read(path)
    rows["bx"][:2] = [-1, PIXELS + 40]
    write_table(path, rows)
    info = run(root, out)[BRICK]["info"]
    assert info["n_real"] + info["n_onedge_real"] == 4
    assert info["removed_real"]["off_image"] == 2


def test_sorted_ids_run_from_bright_to_faint(root, out):
    path = survey_file(root, "tractor")
    rows = fitsio.read(path)
    rows["flux_g"] *= np.linspace(1, 1.3, len(rows))
    write_table(path, rows)
    run(root, out)
    ids = fitsio.read(out / f"real/hdf5/121/{BRICK}/sorted_ids.fits")
    assert ids.dtype.names == ("rs", "id", "mag_g")
    assert (np.diff(ids["mag_g"]) >= 0).all()
    assert sorted(ids["id"]) == sorted(read(out, "real")[2]["id"])


def test_the_record_says_where_the_brick_lies(root, out):
    info = run(root, out)[BRICK]["info"]
    tan = survey.tan_from_info(info)
    assert tan == tan_of(BRICK)
    assert (info["width"], info["height"]) == (PIXELS, PIXELS)


def test_two_bands(tmp_path, out):
    write_brick(tmp_path, bands="gr")
    run(tmp_path, out, bands="gr")
    img, _, table = read(out, "real", bands="gr")
    assert img.shape[-1] == 2
    assert table.dtype == survey.stamp_dtype("gr")


def test_a_brick_without_sources_of_a_class_is_whole(tmp_path, out):
    write_brick(tmp_path, fake=[])
    info = run(tmp_path, out, jpeg=True)[BRICK]["info"]
    assert (info["n_real"], info["n_fake"], info["n_onedge_fake"]) == (4, 0, 0)
    assert read(out, "fake")[0].shape == (0, 64, 64, 3)
    assert len(fitsio.read(out / f"fake/hdf5/121/{BRICK}/sorted_ids.fits", ext=1)) == 0


def test_an_empty_catalogue_is_whole(tmp_path, out):
    write_brick(tmp_path, real=[], fake=[])
    info = run(tmp_path, out)[BRICK]["info"]
    assert (info["n_real"], info["n_fake"]) == (0, 0)
    assert read(out, "real", "_onedge")[0].shape == (0, 64, 64, 3)


def test_broken_pixels_are_masked_and_counted(root, out):
    image, ivar = pixel_names(1), np.full((PIXELS, PIXELS), 200, "f4")
    image[60, 50], image[61, 50], ivar[62, 50], ivar[63, 50], ivar[64, 50] = (
        np.nan, np.inf, np.nan, -1, 0,
    )  # fmt: skip
    image[65, 50], ivar[65, 50] = np.nan, 0  # masked anyway: nothing is lost
    write_plane(root, "image", "r", image)
    write_plane(root, "invvar", "r", ivar)
    assert run(root, out)[BRICK]["info"]["broken_pixels"] == 4
    img, weight, table = read(out, "real")
    assert np.isfinite(img).all()
    assert np.isfinite(weight).all()
    assert (weight >= 0).all()
    row = int(np.flatnonzero(np.abs(table["x"] - 40.3) < 0.01)[0])
    x, y = 50 - (40 - 32), 60 - (51 - 32)
    assert weight[row, x, y : y + 6, 1].tolist() == [0] * 6
    assert img[row, x, y : y + 6, 1].tolist() == [0, 0, 0, 0, pixel_names(1)[64, 50], 0]


def _remove(root, brick):
    survey.image_path(root, brick, "invvar", "z", "rs0").unlink()


def _truncate(root, brick):
    path = survey.image_path(root, brick, "image", "r", "rs0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _not_fits(root, brick):
    survey.image_path(root, brick, "image", "g", "rs0").write_text("<html>404</html>")


def _nan_filled(root, brick):
    image = pixel_names(0)
    image[: PIXELS // 2 + 1] = np.nan
    write_plane(root, "image", "g", image, brick)


def _all_nan(root, brick):
    write_plane(root, "image", "g", np.full((PIXELS, PIXELS), np.nan, "f4"), brick)


def _all_masked(root, brick):
    write_plane(root, "invvar", "r", np.zeros((PIXELS, PIXELS), "f4"), brick)


def _wrong_shape(root, brick):
    write_plane(root, "image", "z", np.zeros((PIXELS, PIXELS - 1), "f4"), brick)


def _no_column(root, brick):
    path = survey_file(root, "tractor", brick)
    rows = fitsio.read(path)
    write_table(path, {name: rows[name] for name in rows.dtype.names if name != "flux_ivar_r"})


def _no_simcat(root, brick):
    survey.simcat_path(root, brick, "rs0").unlink()


def _no_catalogue(root, brick):
    survey_file(root, "tractor", brick).unlink()


FAULTS = [
    (_remove, "invvar-z.fits.fz: is missing"),
    (_truncate, "image-r.fits.fz: is truncated"),
    (_not_fits, "image-g.fits.fz: is truncated, corrupt or no FITS"),
    (_nan_filled, "image-g.fits.fz: 12960 of 25600 exposed pixels are not finite"),
    (_all_nan, "image-g.fits.fz: every pixel is NaN"),
    (_all_masked, "invvar-r.fits.fz: masks every pixel"),
    (_wrong_shape, "image-z.fits.fz: is 159 x 160 pixels"),
    (_no_column, "field flux_ivar_r: has no such column"),
    (_no_simcat, "simcat-elg-1213p060.fits: is missing"),
    (_no_catalogue, "tractor-1213p060.fits: is missing"),
]


@pytest.mark.parametrize(("break_it", "says"), FAULTS)
def test_a_bad_brick_is_named_and_the_others_go_on(root, out, break_it, says):
    """Spec 3.8's planted bricks: refused without skip_bad, listed with it."""
    bad = NAMES[1]
    write_brick(root, bad)
    break_it(root, bad)
    bricks = listed(root, *NAMES[:2])
    with pytest.raises(InputError) as caught:
        run(root, out, bricks)
    assert f"1 items failed ({bad}), the other 1 are done and kept" in str(caught.value)
    assert says in str(caught.value)
    assert not (out / "block.json").exists()
    items = run(root, out, bricks, skip_bad=True)
    assert says in items[bad]["info"]["bad"]
    assert items[bad]["files"] == []
    assert len(items[BRICK]["files"]) == 6
    assert not [name for name in tree_bytes(out) if bad in name or ".tmp" in name]


def test_a_record_of_bricks_and_its_bad_ones(root, out, caplog):
    record = root / "simulated.json"
    items = {BRICK: {"info": {}, "files": []}, NAMES[1]: {"info": {"bad": "no image"}, "files": []}}
    products.write_json(record, {"format": records.FORMAT, "items": items})
    with caplog.at_level(logging.WARNING):
        assert list(run(root, out, record)) == [BRICK]
    assert f"{NAMES[1]} left out, as before: no image" in caplog.text


def test_blocks_of_a_list(root, out):
    for name in NAMES[1:3]:
        write_brick(root, name)
    bricks = listed(root, NAMES[0], f"{NAMES[1]}  # a comment", "", NAMES[2])
    assert list(run(root, out, bricks, block_size=2, block=0)) == NAMES[:2]
    assert list(run(root, out, bricks, block_size=2, block=1)) == NAMES[2:3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# nothing\n\n", "names no brick"),
        ("1211p060\n1211p060\n", "record 1211p060: stands there twice"),
        ("../../etc\n", "record ../../etc: is no brick name"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_a_bad_list_of_bricks(root, out, text, says):
    path = root / "bricks.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        run(root, out, path)
    assert says in str(caught.value)


def command(root: Path, out: Path, *words: str, ranks: int = 1):
    return skyproof(
        "obiwan.cutouts", "--in", f"bricks={root}/bricks.txt", "--out", f"cutouts={out}/block.json",
        *words, ranks=ranks,
    )  # fmt: skip


def test_a_bad_brick_ends_the_command_with_3(root, out):
    _truncate(root, BRICK)
    listed(root)
    result = command(root, out)
    assert result.returncode == 3
    assert "1211p060-image-r.fits.fz: is truncated" in one_line(result)


@pytest.mark.mpi
def test_o17_one_rank_and_four_make_the_same_bytes(root, tmp_path):
    for name in NAMES[1:]:
        write_brick(root, name)
    listed(root, *NAMES)
    trees = {}
    for ranks in (1, 4):
        out = tmp_path / f"ranks{ranks}"
        result = command(root, out, "--jpeg", "true", ranks=ranks)
        assert result.returncode == 0, result.stderr
        trees[ranks] = tree_bytes(out)
    assert len(trees[1]) == 1 + len(NAMES) * 8
    assert trees[1] == trees[4]
