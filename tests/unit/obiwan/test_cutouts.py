"""Stamps of bricks: pixels and values, layout of the files, options."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import fitsio
import numpy as np
import pytest

from skyproof.core import blocks
from skyproof.core.formats import write
from skyproof.obiwan import cutouts, survey
from skyproof.obiwan.catalogue.sources import class_rows
from skyproof.sky.tan import tan_from_info
from tests.conftest import tree_bytes
from tests.unit.obiwan.build.bricks import (
    BRICK,
    NAMES,
    PIXELS,
    SOURCES,
    beside,
    command,
    listed,
    pixel_names,
    read,
    run,
    tan_of,
    tractor,
    write_brick,
    write_table,
)


def test_o02_the_layout_of_a_brick(root, out):
    items = run(root, out)
    names = ["img_ivar_grz.hdf5", "img_ivar_grz_onedge.hdf5", "sorted_ids.fits"]
    expected = [f"{kind}/hdf5/121/{BRICK}/{name}" for kind in ("fake", "real") for name in names]
    assert [entry["path"] for entry in items[BRICK]["files"]] == expected
    assert sorted(name for name in tree_bytes(out) if "/" in name) == expected
    item = blocks.read_index(out / "block.json")[0]
    assert len(item.paths) == 6


def test_every_stamp_has_the_pixels_and_values_of_its_source(root, out):
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


def test_o03_edge_stamps_have_a_separate_file_and_distinct_bands(root, out):
    """In the original all bands of a stamp at the edge added up in one image, 65 x 65."""
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
    original = cutouts.choose_sources

    def counting(image, brick, options):
        cut.append(brick)
        return original(image, brick, options)

    monkeypatch.setattr(cutouts, "choose_sources", counting)
    assert run(root, out, bricks) == first
    assert cut == []
    damaged = out / "fake" / "hdf5" / BRICK[:3] / BRICK / "img_ivar_grz.hdf5"
    content = bytearray(damaged.read_bytes())
    content[-1000] ^= 1
    damaged.write_bytes(content)
    assert run(root, out, bricks) == first
    assert cut == [BRICK]
    assert tree_bytes(out) == before
    run(root, out, bricks, cache_key="another")
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
    assert len(ids) == 5  # the original's last realisation overwrote the others


def test_other_sources_near_injected_ones_have_no_class(root, out):
    """A catalogued fragment 0.5 arcsec from an injected galaxy belongs to no class."""
    path = tractor(root)
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


def test_options_of_the_original_release_images_and_input_values(tmp_path, out):
    """real_images: release, fake_values: input, cut: real, layout: original; two folders."""
    release, injected = tmp_path / "release", tmp_path / "injected"
    write_brick(release, rs="", fake=[])
    write_brick(injected, rs="rs0")
    tractor(injected).unlink()  # not needed
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


def test_cuts_apply_to_the_configured_classes(root, out):
    """In the original the injected class had no cuts."""
    path = tractor(root)
    rows = fitsio.read(path)
    rows["type"] = "COMP"
    write_table(path, rows)
    for cut, n_real, n_fake in (("both", 0, 0), ("real", 0, 3), ("none", 4, 3)):
        info = run(root, out, cache_key=cut, cut=cut)[BRICK]["info"]
        assert (info["n_real"], info["n_fake"]) == (n_real, n_fake)
        assert info["removed_real"].get("type", 0) == (0 if cut == "none" else 6)


def test_positions_come_from_the_sky_where_the_catalogue_has_no_pixels(root, out):
    path = tractor(root)
    rows = fitsio.read(path)
    names = [name for name in rows.dtype.names if name not in ("bx", "by", "brick_primary")]
    write_table(path, {name: rows[name] for name in names})
    run(root, out)
    x = np.concatenate([read(out, "real", suffix)[2]["x"] for suffix in ("", "_onedge")])
    np.testing.assert_allclose(np.sort(x), sorted(x for x, _ in SOURCES), atol=1e-6)


def test_sources_off_the_image_are_counted(root, out):
    path = tractor(root)
    rows = fitsio.read(path)
    rows["bx"][:2] = [-1, PIXELS + 40]
    write_table(path, rows)
    info = run(root, out)[BRICK]["info"]
    assert info["n_real"] + info["n_onedge_real"] == 4
    assert info["removed_real"]["off_image"] == 2


def test_sorted_ids_run_from_bright_to_faint(root, out):
    path = tractor(root)
    rows = fitsio.read(path)
    rows["flux_g"] *= np.linspace(1, 1.3, len(rows))
    write_table(path, rows)
    run(root, out)
    ids = fitsio.read(out / f"real/hdf5/121/{BRICK}/sorted_ids.fits")
    assert ids.dtype.names == ("rs", "id", "mag_g")
    assert (np.diff(ids["mag_g"]) >= 0).all()
    assert sorted(ids["id"]) == sorted(read(out, "real")[2]["id"])


def test_the_block_index_has_the_footprint_of_the_brick(root, out):
    info = run(root, out)[BRICK]["info"]
    tan = tan_from_info(info)
    assert tan == tan_of(BRICK)
    assert (info["width"], info["height"]) == (PIXELS, PIXELS)


def test_two_bands(tmp_path, out):
    write_brick(tmp_path, bands="gr")
    run(tmp_path, out, bands="gr")
    img, _, table = read(out, "real", bands="gr")
    assert img.shape[-1] == 2
    assert table.dtype == survey.stamp_dtype("gr")


def test_a_brick_without_sources_of_a_class_has_all_files(tmp_path, out):
    write_brick(tmp_path, fake=[])
    info = run(tmp_path, out, jpeg=True)[BRICK]["info"]
    assert (info["n_real"], info["n_fake"], info["n_onedge_fake"]) == (4, 0, 0)
    assert read(out, "fake")[0].shape == (0, 64, 64, 3)
    assert len(fitsio.read(out / f"fake/hdf5/121/{BRICK}/sorted_ids.fits", ext=1)) == 0


def test_an_empty_catalogue_gives_all_files(tmp_path, out):
    write_brick(tmp_path, real=[], fake=[])
    info = run(tmp_path, out)[BRICK]["info"]
    assert (info["n_real"], info["n_fake"]) == (0, 0)
    assert read(out, "real", "_onedge")[0].shape == (0, 64, 64, 3)


def test_a_block_index_with_bad_bricks(root, out, caplog):
    index = root / "simulated.json"
    items = {BRICK: {"info": {}, "files": []}, NAMES[1]: {"info": {"bad": "no image"}, "files": []}}
    write.json(index, {"format": blocks.FORMAT, "items": items})
    with caplog.at_level(logging.WARNING):
        assert list(run(root, out, index)) == [BRICK]
    assert f"{NAMES[1]} skipped, as before: no image" in caplog.text


def test_blocks_of_a_list(root, out):
    for name in NAMES[1:3]:
        write_brick(root, name)
    bricks = listed(root, NAMES[0], f"{NAMES[1]}  # a comment", "", NAMES[2])
    assert list(run(root, out, bricks, block_size=2, block=0)) == NAMES[:2]
    assert list(run(root, out, bricks, block_size=2, block=1)) == NAMES[2:3]


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
