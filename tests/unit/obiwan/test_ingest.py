"""obiwan.ingest: exposures to bricks with injected galaxies, on synthetic and real images."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fitsio
import numpy as np
import pytest

from skyproof.core import blocks
from skyproof.core.errors import InputError, UsageError
from skyproof.core.seeds import stream
from skyproof.core.stage import Context
from skyproof.obiwan import ingest, survey
from skyproof.obiwan.bricks.grid import PIXEL_SCALE, brick_of_id, brick_tan, bricks_at
from skyproof.obiwan.options import Ingest
from skyproof.obiwan.reduction import detect
from skyproof.obiwan.reduction.ccds import Exposure, read_ccds, read_exposure
from skyproof.obiwan.reduction.inject import (
    GALAXY_DTYPE,
    add_galaxies,
    draw_galaxies,
    draw_positions,
)
from skyproof.obiwan.reduction.resample import footprint_box, resample, stack
from skyproof.sky.tan import Tan, tan_from_info
from tests.conftest import one_line, skyproof, tree_bytes
from tests.unit.obiwan.build import ccds as ccds_build
from tests.unit.obiwan.build.ccds import CcdFiles, make_ccd_files

BRICK = "2000p315"


def ingested(ccd_files: CcdFiles, out: Path, **options: object) -> blocks.Item:
    """Run the stage on a folder and return its single brick."""
    options = {"bands": ccd_files.bands, "n_fake": 12, **options}
    inputs = SimpleNamespace(ccds=ccd_files.table, images=ccd_files.images, calib=ccd_files.calib)
    outputs = SimpleNamespace(bricks=out / "block-00000.json")
    out.mkdir(parents=True, exist_ok=True)
    ingest.run(inputs, outputs, Ingest(**options), Context("obiwan.ingest", seed=5))
    (item,) = blocks.read_index(outputs.bricks)
    return item


@pytest.fixture(scope="module")
def ccd_files(tmp_path_factory: pytest.TempPathFactory) -> CcdFiles:
    return make_ccd_files(tmp_path_factory.mktemp("ccds"))


@pytest.fixture(scope="module")
def brick(ccd_files: CcdFiles, tmp_path_factory: pytest.TempPathFactory) -> blocks.Item:
    return ingested(ccd_files, tmp_path_factory.mktemp("bricks"), n_realizations=2)


@pytest.fixture(scope="module")
def exposure(ccd_files: CcdFiles) -> Exposure:
    _, ccds = read_ccds(ccd_files.table)
    return read_exposure(
        ccds[0], ccd_files.table, ccd_files.images, ccd_files.calib, logging.getLogger()
    )


def local_tan(exposure: Exposure) -> Tan:
    """The part of the brick's grid that an exposure covers."""
    whole = brick_tan(brick_of_id(int(bricks_at(*ccds_build.CENTRE))), 3600)
    box = footprint_box(exposure.wcs, exposure.image.shape, whole)
    assert box is not None
    (y0, y1), (x0, x1) = ((side.start, side.stop) for side in box)
    crpix = whole.crpix[0] - x0, whole.crpix[1] - y0
    return replace(whole, crpix=crpix, width=x1 - x0, height=y1 - y0)


def tan_of(item: blocks.Item) -> Tan:
    return tan_from_info(item.info)


def test_files_have_the_layout_of_the_survey(brick: blocks.Item) -> None:
    """o02: every file has its documented path and is readable by the other stages."""
    root = brick.index.parent
    assert brick.name == BRICK
    assert survey.realizations(root, BRICK) == ["rs0", "rs1"]
    images = [survey.image_path(root, BRICK, "image", band, "rs1") for band in survey.BANDS]
    assert [path.is_file() for path in images] == [True, False, True, False]  # g, i
    tan = tan_of(brick)
    for kind in ("image", "invvar"):
        plane, header = survey.read_plane(survey.image_path(root, BRICK, kind, "i", "rs0"))
        assert plane.shape == (tan.height, tan.width)
        assert Tan.from_header(header).crpix == tan.crpix
    assert len(survey.read_tractor(survey.tractor_path(root, BRICK, "rs0"), "gi")["objid"]) > 5
    simcat = survey.read_simcat(survey.simcat_path(root, BRICK, "rs0"), "gi")
    assert len(simcat["id"]) == brick.info["rs0"]["n_fake"]
    assert len(fitsio.read(str(survey.ccds_path(root, BRICK, "rs0")))) == 2


def test_the_image_is_the_part_of_the_brick_covered_by_ccds(brick: blocks.Item) -> None:
    """The small field gives a small image, on the pixels of the whole brick."""
    tan = tan_of(brick)
    whole = brick_tan(brick_of_id(int(bricks_at(*ccds_build.CENTRE))), 3600)
    side = ccds_build.SIZE * ccds_build.SCALE_ARCSEC / PIXEL_SCALE
    assert tan.width == pytest.approx(side * 1.28, abs=5)  # cos 20 deg + sin 20 deg
    assert (tan.ra, tan.dec, tan.cd) == (whole.ra, whole.dec, whole.cd)
    assert (tan.crpix[0] - whole.crpix[0]) % 1 == 0


def test_stars_keep_flux_and_position(ccd_files: CcdFiles, brick: blocks.Item) -> None:
    """From 0.3 arcsec pixels with SIP distortions to the brick: flux to 1 %, position to 20 mas."""
    root = brick.index.parent
    tractor = survey.read_tractor(survey.tractor_path(root, BRICK, "rs0"), "gi")
    image, _ = survey.read_plane(survey.image_path(root, BRICK, "image", "g", "rs0"))
    for star in ccds_build.STARS[1:]:
        ra, dec = ccds_build.true_wcs().pixel_to_world_values(*star)
        x, y = tan_of(brick).pixel(ra, dec)
        distance = np.hypot(tractor["bx"] - x, tractor["by"] - y)
        nearest = int(distance.argmin())
        assert distance[nearest] * PIXEL_SCALE < 0.02  # measured: 0.004
        assert tractor["type"][nearest] == "PSF"
        # A Moffat profile has some wings outside; the aperture correction knows them roughly.
        assert tractor["flux_g"][nearest] == pytest.approx(ccds_build.STAR_FLUX, rel=0.05)
    gy, gx = np.indices(image.shape)
    around = np.hypot(gx - x, gy - y) < 22
    assert image[around].sum() == pytest.approx(ccds_build.STAR_FLUX, rel=0.02)


def test_sky_is_zero_with_the_noise_of_its_weights(brick: blocks.Item) -> None:
    """Interpolation correlates pixels, so their spread is a little below that of the weights."""
    for rs in ("rs0", "rs1"):
        for sky in brick.info[rs]["sky"].values():
            assert abs(sky["median"]) < 0.15  # measured: 0.05 to 0.09, the wings of bright stars
            assert 0.7 < sky["sigma"] < 1.02  # measured: 0.86 to 0.88


def test_injected_galaxies_are_measured_like_others(ccd_files: CcdFiles, tmp_path: Path) -> None:
    """Bright injected galaxies are found where they were put, with their flux, in all bands."""
    item = ingested(ccd_files, tmp_path, n_realizations=2, mag_min=18.0, mag_max=20.5)
    ratios: dict[str, list[float]] = {"g": [], "i": []}
    count = 0
    for rs in ("rs0", "rs1"):
        tractor = survey.read_tractor(survey.tractor_path(tmp_path, BRICK, rs), "gi")
        simcat = survey.read_simcat(survey.simcat_path(tmp_path, BRICK, rs), "gi")
        x, y = tan_of(item).pixel(simcat["ra"], simcat["dec"])
        distance = np.hypot(tractor["bx"] - x[:, None], tractor["by"] - y[:, None])
        near = distance.min(axis=1) < 1
        count += len(x)
        for band, values in ratios.items():
            measured = tractor[f"flux_{band}"][distance.argmin(axis=1)]
            values += list((measured / simcat[f"flux_{band}"])[near])
    for values in ratios.values():
        assert len(values) > 0.7 * count  # the others are blends
        assert np.median(values) == pytest.approx(1, abs=0.08)  # measured: 1.03


def test_realizations_differ_in_their_galaxies_only(brick: blocks.Item) -> None:
    root = brick.index.parent
    first, second = (
        survey.read_simcat(survey.simcat_path(root, BRICK, rs), "gi") for rs in ("rs0", "rs1")
    )
    assert not np.isin(first["ra"], second["ra"]).any()
    ivar = [survey.read_plane(survey.image_path(root, BRICK, "invvar", "g", rs))[0]
            for rs in ("rs0", "rs1")]  # fmt: skip
    # The weights of the files do not count sources, so injected ones leave no trace in them.
    np.testing.assert_array_equal(ivar[0], ivar[1])


def galaxy(exposure: Exposure, x: float, y: float, **values: float) -> np.ndarray:
    one = np.zeros(1, GALAXY_DTYPE)
    one["ra"], one["dec"] = exposure.wcs.pixel_to_world_values(x, y)
    one["rhalf"], one["n"], one["ba"], one["mag_g"] = 0.8, 1, 1, 18.0
    for name, value in values.items():
        one[name] = value
    return one


def test_injection_adds_flux_noise_and_variance(exposure: Exposure) -> None:
    """The flux is that of the magnitude; photon noise is Poisson; masks are unchanged."""
    rng = np.random.default_rng(3)
    counting = replace(exposure, noise_of_sources=True)
    one = galaxy(exposure, 120.3, 99.6)
    added = add_galaxies(counting, one, rng)
    light = added.image.astype(float) - exposure.image
    flux = 10 ** (0.4 * 4.5)
    clean = exposure.ivar > 0
    assert light.sum() == pytest.approx(flux, rel=0.02)  # one pixel is masked
    y, x = np.indices(light.shape)
    assert (light * x).sum() / light.sum() == pytest.approx(120.3, abs=0.05)
    assert (light * y).sum() / light.sum() == pytest.approx(99.6, abs=0.05)
    assert np.all(added.image[~clean] == 0)
    assert np.all(added.ivar[~clean] == 0)
    variance = 1 / added.ivar[clean].astype(float) - 1 / exposure.ivar[clean].astype(float)
    assert variance.sum() == pytest.approx(flux / exposure.electrons, rel=0.05)
    twice = add_galaxies(counting, one, rng).image.astype(float) - exposure.image
    assert ((twice - light)[clean].var() * clean.sum()) == pytest.approx(
        2 * flux / exposure.electrons, rel=0.25
    )
    np.testing.assert_array_equal(add_galaxies(exposure, one, rng).ivar, exposure.ivar)


@pytest.mark.parametrize("pa", [0.0, 30.0, 110.0])
def test_position_angles_count_from_north_through_east(exposure: Exposure, pa: float) -> None:
    """On the rotated, mirrored CCD as on the brick, where north is up and east to the left."""
    one = galaxy(exposure, 95.0, 150.0, ba=0.3, pa=pa, rhalf=1.2)
    empty = replace(exposure, image=exposure.image * 0, electrons=1e9)
    placed = resample(add_galaxies(empty, one, np.random.default_rng(1)), local_tan(exposure))
    assert placed is not None
    _, image, _ = placed
    y, x = np.indices(image.shape)
    weight = image / image.sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    xx, yy, xy = ((weight * product).sum() for product in (x * x, y * y, x * y))
    angle = 0.5 * np.degrees(np.arctan2(2 * xy, xx - yy)) - 90  # from up towards the left
    assert (angle - pa + 90) % 180 - 90 == pytest.approx(0, abs=3)


def test_overlapping_exposures_are_averaged_by_weight(exposure: Exposure) -> None:
    """Two exposures of unequal noise: inverse variances add, the image is their weighted mean."""
    tan = local_tan(exposure)
    deeper = replace(exposure, image=exposure.image * 0 + 1, ivar=exposure.ivar * 3)
    other = replace(exposure, image=exposure.image * 0)
    one, both = stack([deeper], tan), stack([deeper, other], tan)
    seen = both.nobs == 2
    assert seen.sum() > 30_000
    np.testing.assert_allclose(both.image[seen], one.image[seen] * 0.75, rtol=1e-4)
    np.testing.assert_allclose(both.ivar[seen], one.ivar[seen] * 4 / 3, rtol=1e-4)
    ratio = (PIXEL_SCALE / ccds_build.SCALE_ARCSEC) ** 2
    assert np.median(one.image[seen]) == pytest.approx(ratio, rel=0.02)  # flux a smaller pixel


def test_positions_keep_their_separation_and_are_inside() -> None:
    """Separation and coverage are satisfied; a small field has fewer galaxies than requested."""

    def covered(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x < 250

    x, y = draw_positions(200, 20.0, (500, 500), covered, np.random.default_rng(2))
    assert 40 < len(x) <= 250 * 500 / 40**2 + 1
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
    assert distance.min() >= 20
    assert x.max() < 250
    x, _ = draw_positions(7, 20.0, (500, 500), covered, np.random.default_rng(2))
    assert len(x) == 7


def test_the_population_is_within_its_limits() -> None:
    tan = replace(brick_tan(brick_of_id(1000), 3600), width=3600, height=3600)
    catalog = draw_galaxies(
        400, (20.7, 23.5), 10.0, tan, lambda x, y: np.ones(len(x), bool), stream(1, "a")
    )
    assert len(catalog) == 400
    assert catalog["mag_g"].min() >= 20.7
    assert catalog["mag_g"].max() <= 23.5
    assert (catalog["mag_g"] > 22.1).mean() > 0.6  # counts rise with magnitude
    gr, rz = catalog["mag_g"] - catalog["mag_r"], catalog["mag_r"] - catalog["mag_z"]
    assert np.all(gr <= 1.15 * rz - 0.15)
    assert np.all(gr <= -1.2 * rz + 1.6)
    assert np.all((catalog["ba"] >= 0.2) & (catalog["rhalf"] > 0.131))
    np.testing.assert_allclose(tan.pixel(catalog["ra"], catalog["dec"])[0], catalog["x"])


def test_empty_sky_has_few_false_detections(exposure: Exposure) -> None:
    """The threshold uses the noise of correlated, resampled pixels."""
    rng = np.random.default_rng(8)
    noise = np.where(exposure.ivar > 0, rng.normal(0, ccds_build.SKY_SIGMA, exposure.ivar.shape), 0)
    empty = stack([replace(exposure, image=noise.astype(np.float32))], local_tan(exposure))
    assert len(detect.detect({"g": empty}, 4.0).objects) <= 2
    assert len(detect.detect({"g": empty}, 1.5).objects) > 20


def test_a_missing_band_is_reported(ccd_files: CcdFiles, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in band z"):
        ingested(ccd_files, tmp_path / "out", bands="gz")
    item = ingested(ccd_files, tmp_path / "out", bands="gz", skip_bad=True)
    assert "no CCD in band z" in item.info["bad"]
    assert str(ccd_files.root) not in item.info["bad"]  # a block index holds no path of a machine
    assert item.paths == ()


def test_a_full_or_uncovered_field_is_reported(ccd_files: CcdFiles, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no space for a galaxy"):
        ingested(ccd_files, tmp_path, separation=40.0)
    with pytest.raises(UsageError, match="mag_min"):
        ingested(ccd_files, tmp_path, mag_min=22.0, mag_max=21.0)
    with pytest.raises(InputError, match="has CCDs in g, i"):
        ingested(ccd_files, tmp_path, bands="rz")


def test_bad_input_ends_with_one_line(tmp_path: Path) -> None:
    """Exit 3 with file and cause; no file of the brick under its final name."""
    ccd_files = make_ccd_files(tmp_path / "ccds")
    ccd_files.image("i", "d").write_bytes(b"SIMPLE")
    out = tmp_path / "out"
    words = [f"ccds={ccd_files.table}", f"images={ccd_files.images}", f"calib={ccd_files.calib}"]
    block_index = out / "block-00000.json"
    result = skyproof(
        "obiwan.ingest", "--in", *words, "--out", f"bricks={block_index}", "--bands", "gi"
    )  # fmt: skip
    assert result.returncode == 3
    line = one_line(result)
    assert BRICK in line
    assert ccd_files.image("i", "d").name in line
    assert tree_bytes(out) == {}


@pytest.mark.mpi
@pytest.mark.slow
def test_two_ranks_make_the_same_bytes(tmp_path: Path) -> None:
    """o17: two bricks on one rank and on two."""
    ccd_files = make_ccd_files(tmp_path / "ccds", centre=ccds_build.BETWEEN)
    words = [f"ccds={ccd_files.table}", f"images={ccd_files.images}", f"calib={ccd_files.calib}"]
    made = []
    for ranks in (1, 2):
        out = tmp_path / f"out{ranks}"
        result = skyproof(
            "obiwan.ingest", "--in", *words, "--out", f"bricks={out / 'b.json'}",
            "--bands", "gi", "--n-fake", "8", ranks=ranks,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        made.append(tree_bytes(out))
    assert len(json.loads(made[0]["b.json"])["items"]) == 2
    assert made[0] == made[1]


@pytest.mark.slow
def test_real_exposures_become_a_brick(real_data: Path, tmp_path: Path) -> None:
    """DECam g, r, z: sky near zero, galaxies recovered, some of them among real ones."""
    folder = real_data / "obiwan/testcase_decals_grz"
    if not folder.is_dir():
        pytest.skip(f"no real exposures: {folder} is absent")
    inputs = SimpleNamespace(
        ccds=folder / "survey-ccds-1.fits.gz", images=folder / "images", calib=folder / "calib"
    )
    outputs = SimpleNamespace(bricks=tmp_path / "b.json")
    options = Ingest(n_fake=25, n_realizations=3)
    ingest.run(inputs, outputs, options, Context("obiwan.ingest", seed=5))
    (item,) = blocks.read_index(outputs.bricks)
    assert item.name == "0285m165"
    ratios: dict[str, list[float]] = {band: [] for band in "grz"}
    injected = found = others = 0
    for rs in ("rs0", "rs1", "rs2"):
        for sky in item.info[rs]["sky"].values():
            assert abs(sky["median"]) < 0.1  # measured: -0.03 to 0.05
            assert 0.8 < sky["sigma"] < 1  # measured: 0.86 to 0.92
        tractor = survey.read_tractor(survey.tractor_path(tmp_path, item.name, rs), "grz")
        simcat = survey.read_simcat(survey.simcat_path(tmp_path, item.name, rs), "grz")
        x, y = tan_of(item).pixel(simcat["ra"], simcat["dec"])
        distance = np.hypot(tractor["bx"] - x[:, None], tractor["by"] - y[:, None])
        near = distance.min(axis=1) < 3
        injected, found = injected + len(x), found + int(near.sum())
        others += len(tractor["objid"]) - int(near.sum())
        for band, values in ratios.items():
            measured = tractor[f"flux_{band}"][distance.argmin(axis=1)]
            values += list((measured / simcat[f"flux_{band}"])[near])
    assert found > 0.75 * injected  # measured: 0.9
    assert others > 20  # real sources, 10 or so in each
    for values in ratios.values():
        assert np.median(values) == pytest.approx(1, abs=0.12)  # measured: 0.97 to 1.04
