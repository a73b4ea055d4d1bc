"""Synthetic bricks: equal classes unless a difference is planted, and reproducible bytes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from skyproof.core import blocks
from skyproof.core.errors import UsageError
from skyproof.core.stage import Context
from skyproof.obiwan import simulate, survey
from skyproof.obiwan.catalogue.draws import draw_magnitudes, positions_apart
from skyproof.obiwan.catalogue.selection import Limits, corrected_magnitudes, select_measured
from skyproof.obiwan.mock import depth
from skyproof.obiwan.options import Simulate
from skyproof.sky.profiles import points, render
from skyproof.sky.tan import Tan, tan_from_info
from tests.conftest import one_line, skyproof, tree_bytes
from tests.unit.obiwan.build.bricks import brick_names

SMALL = {
    "n_bricks": 2,
    "block_size": 2,
    "brick_pixels": 160,
    "n_real": 4,
    "n_fake": 3,
    "n_stars": 2,
}


def build(folder: Path, **options) -> list[blocks.Item]:
    """Run the stage in this process and return the bricks of the block index."""
    settings = Simulate(**{**SMALL, **options})
    index = folder / f"block-{settings.block:05d}.json"
    folder.mkdir(parents=True, exist_ok=True)
    context = Context("obiwan.simulate", seed=settings.seed, cache_key=str(options))
    simulate.run(SimpleNamespace(), SimpleNamespace(bricks=index), settings, context)
    return blocks.read_index(index)


def plane(folder, brick, kind, band):
    return survey.read_plane(survey.image_path(folder, brick, kind, band, "rs0"))[0]


def catalogues(folder: Path, bricks: list[blocks.Item]) -> tuple[dict, np.ndarray]:
    """Return all measured galaxies of some bricks and which of them are injected.

    Stars are told from galaxies by what is stored nowhere: they are drawn without counterpart in
    the injection catalogue, so the runs that use this have none.
    """
    tables, flags = [], []
    for brick in bricks:
        table = survey.read_tractor(survey.tractor_path(folder, brick.name, "rs0"), "grz")
        put_in = survey.read_simcat(survey.simcat_path(folder, brick.name, "rs0"), "grz")
        apart = np.hypot(
            (table["ra"][:, None] - put_in["ra"]) * np.cos(np.radians(6)),
            table["dec"][:, None] - put_in["dec"],
        )
        near = apart.min(axis=1) * 3600 < 2.0
        assert near.sum() == len(put_in["id"])
        tables.append(table)
        flags.append(near)
    joined = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
    return joined, np.concatenate(flags)


def p_values(table: dict, injected: np.ndarray) -> dict[str, float]:
    """Return the Kolmogorov-Smirnov p-value between the classes of every measured column."""
    magnitudes = corrected_magnitudes(table, "grz")
    columns = {name: c for name, c in table.items() if c.dtype.kind in "fi" and np.ptp(c) > 0}
    columns |= {"g-r": magnitudes["g"] - magnitudes["r"], "r-z": magnitudes["r"] - magnitudes["z"]}
    columns |= {
        f"is {kind}": (table["type"] == kind).astype(float) for kind in ("REX", "EXP", "DEV")
    }
    return {
        name: ks_2samp(column[injected], column[~injected], method="asymp").pvalue
        for name, column in columns.items()
        if np.isfinite(column).all()
    }


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    """Bricks without any planted difference."""
    folder = tmp_path_factory.mktemp("null")
    bricks = build(
        folder, n_bricks=6, block_size=6, brick_pixels=500, n_real=40, n_fake=40, n_stars=0,
        clump_fraction=0.0,
    )  # fmt: skip
    return folder, bricks


def test_the_files_and_the_block_index(tmp_path):
    """o02: paths of the layout; the block index has the footprints."""
    bricks = build(tmp_path)
    assert [brick.name for brick in bricks] == brick_names(2)
    brick = bricks[0]
    name = brick.name
    expected = {survey.image_path("", name, kind, band, "rs0")
                for kind in ("image", "invvar") for band in "grz"}  # fmt: skip
    expected |= {survey.ccds_path("", name, "rs0"), survey.simcat_path("", name, "rs0")}
    expected.add(Path(f"tractor/121/{name}/rs0/tractor-{name}.fits"))
    assert {path.relative_to(tmp_path) for path in brick.paths} == expected
    assert survey.realizations(tmp_path, name) == ["rs0"]
    tan = tan_from_info(brick.info)
    header = survey.read_plane(survey.image_path(tmp_path, name, "image", "r", "rs0"))[1]
    assert Tan.from_header(header) == tan
    assert (brick.info["n_real"], brick.info["n_fake"], brick.info["n_stars"]) == (4, 3, 2)
    assert set(brick.info["psfsize"]) == set("grz")
    table = survey.read_tractor(survey.tractor_path(tmp_path, name, "rs0"), "grz")
    assert len(table["objid"]) == 9
    # Tractor positions and sky coordinates tell the same; float32 pixels
    np.testing.assert_allclose(tan.pixel(table["ra"], table["dec"])[0], table["bx"], atol=1e-4)


def test_without_planted_difference_the_classes_do_not_differ(null):
    """o14: no measured column, nor the order in the catalogue, separates real from injected."""
    values = p_values(*catalogues(*null))
    assert len(values) > 20
    assert {name: p for name, p in values.items() if p < 0.05 / len(values)} == {}


def test_a_colour_offset_changes_only_injected_galaxies(null, tmp_path):
    """The galaxies are the same except for g-r of the injected ones."""
    folder, bricks = null
    shifted = build(
        tmp_path, n_bricks=6, block_size=6, brick_pixels=500, n_real=40, n_fake=40, n_stars=0,
        clump_fraction=0.0, colour_offset=0.3,
    )  # fmt: skip
    name = bricks[0].name
    before, after = (
        survey.read_simcat(survey.simcat_path(root, name, "rs0"), "grz")
        for root in (folder, tmp_path)
    )
    np.testing.assert_array_equal(before["flux_g"], after["flux_g"])
    np.testing.assert_allclose(after["flux_r"] / before["flux_r"], 10**0.12, rtol=1e-5)
    assert p_values(*catalogues(tmp_path, shifted))["g-r"] < 1e-6


def test_clumps_change_only_real_galaxies(null, tmp_path):
    """o15: injected galaxies, catalogues and noise are unchanged, images of real ones are not."""
    folder, bricks = null
    build(
        tmp_path, n_bricks=6, block_size=6, brick_pixels=500, n_real=40, n_fake=40, n_stars=0,
        clump_fraction=0.6,
    )  # fmt: skip
    brick = bricks[0]
    path = brick.path(str(survey.realization_tractor_path("", brick.name, "rs0")))
    assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()
    moved = np.abs(
        plane(folder, brick.name, "image", "r") - plane(tmp_path, brick.name, "image", "r")
    )
    moved *= np.sqrt(plane(folder, brick.name, "invvar", "r"))
    table, injected = catalogues(folder, [brick])
    # Apart from real neighbours: only pixels beside the source itself are looked at
    x, y = np.rint(table["bx"]).astype(int), np.rint(table["by"]).astype(int)
    inside = (x > 2) & (x < 497) & (y > 2) & (y < 497)
    largest = np.array([
        moved[b - 2 : b + 3, a - 2 : a + 3].max() if ok else 0
        for a, b, ok in zip(x, y, inside, strict=True)
    ])  # fmt: skip
    assert np.median(largest[inside & ~injected]) > 1.5  # in units of the noise; measured: 2.7
    assert np.median(largest[inside & injected]) < 0.5  # the quantisation; measured: 0.05


def test_the_noise_is_that_of_the_inverse_variance(tmp_path):
    """chi = image sqrt(ivar) of an almost empty brick is N(0, 1); no pixel is seen without ivar."""
    brick = build(tmp_path, n_bricks=1, brick_pixels=500, n_real=1, n_fake=1, n_stars=0)[0]
    for band in "grz":
        image = plane(tmp_path, brick.name, "image", band)
        ivar = plane(tmp_path, brick.name, "invvar", band)
        assert 0 < (ivar == 0).mean() < 0.02
        assert (image[ivar == 0] == 0).all()
        assert len(np.unique(ivar)) > 3  # steps of depth
        chi = (image * np.sqrt(ivar))[ivar > 0]
        low, middle, high = np.percentile(chi, [15.866, 50, 84.134])
        assert abs(middle) < 0.02  # measured: up to 0.009, the wings of the two galaxies
        assert (high - low) / 2 == pytest.approx(
            1, abs=0.01
        )  # measured: 1.004 to 1.005, with their light


def test_the_depth_of_an_exposure_is_that_of_a_matched_filter():
    """A point source with the magnitude of the depth has S/N 5 in noise of that depth."""
    one = np.ones(1)
    for fwhm in (0.9, 1.3):
        sigma = depth.pixel_noise(24.0, fwhm)
        flux = one * 10 ** (0.4 * (22.5 - 24.0))
        image = render(
            (65, 65), one * 32, one * 32, flux, points(1), depth.point_spread(fwhm), 1e-9
        )
        assert np.sqrt((image**2).sum()) / sigma == pytest.approx(5, rel=1e-3)


def test_measured_errors_equal_those_of_the_catalogue(null):
    """(measured - input) / error of injected galaxies has standard deviation 1."""
    folder, bricks = null
    pulls = []
    for brick in bricks:
        table = survey.read_tractor(survey.tractor_path(folder, brick.name, "rs0"), "grz")
        put_in = survey.read_simcat(survey.simcat_path(folder, brick.name, "rs0"), "grz")
        apart = np.hypot(table["ra"][:, None] - put_in["ra"], table["dec"][:, None] - put_in["dec"])
        row = apart.argmin(axis=0)
        for b in "grz":
            error = np.sqrt(table[f"flux_ivar_{b}"][row])
            pulls.append((table[f"flux_{b}"][row] - put_in[f"flux_{b}"]) * error)
    pull = np.concatenate(pulls)
    pull = pull[pull != 0]
    assert pull.std() == pytest.approx(1, abs=0.1)  # 720 values: +-0.03; measured: 0.96
    assert abs(pull.mean()) < 0.15  # +-0.04; measured: 0.07


def test_stars_do_not_pass_the_selection(tmp_path):
    """o14: a star among the real stamps would have no injected counterpart."""
    options = {"n_bricks": 4, "block_size": 4, "n_real": 1, "n_fake": 1, "n_stars": 200}
    bricks = build(tmp_path, **options, brick_pixels=400)
    for brick in bricks:
        table = survey.read_tractor(survey.tractor_path(tmp_path, brick.name, "rs0"), "grz")
        assert select_measured(table, "grz", Limits()).kept.sum() <= 2


def test_most_galaxies_pass_the_selection(null):
    table, injected = catalogues(*null)
    kept = select_measured(table, "grz", Limits()).kept
    for own in (kept[injected], kept[~injected]):
        assert 0.4 < own.mean() < 0.95  # measured: 0.63 and 0.63


def test_a_brick_does_not_depend_on_block_or_other_bands(tmp_path):
    whole = build(tmp_path / "a", n_bricks=2, block_size=2)
    build(tmp_path / "b", n_bricks=2, block_size=1, block=1)
    build(tmp_path / "c", n_bricks=2, block_size=2, bands="gr")
    name = whole[1].name
    files = {path.relative_to(tmp_path / "a") for path in whole[1].paths}
    assert len(files) == 9
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    image = survey.image_path("", name, "image", "g", "rs0")
    assert (tmp_path / "a" / image).read_bytes() == (tmp_path / "c" / image).read_bytes()


def test_another_seed_gives_other_bricks(tmp_path):
    first, second = (build(tmp_path / str(seed), seed=seed)[0] for seed in (1, 2))
    assert plane(tmp_path / "1", first.name, "image", "g").sum() != (
        plane(tmp_path / "2", second.name, "image", "g").sum()
    )


def words(folder: Path, **options) -> list[str]:
    settings = {**SMALL, "n_bricks": 3, "block_size": 3, **options}
    pairs = [(f"--{k.replace('_', '-')}", str(v)) for k, v in settings.items()]
    out = ["--out", f"bricks={folder}/block-00000.json"]
    return ["obiwan.simulate", *out, *(word for pair in pairs for word in pair)]


@pytest.mark.mpi
def test_one_rank_and_two_write_the_same_bytes(tmp_path):
    """o17"""
    for ranks in (1, 2):
        result = skyproof(*words(tmp_path / str(ranks)), ranks=ranks)
        assert result.returncode == 0, result.stderr
    serial, parallel = tree_bytes(tmp_path / "1"), tree_bytes(tmp_path / "2")
    assert len(serial) == 3 * 9 + 1
    assert serial == parallel
    assert list(json.loads(serial["block-00000.json"])["items"]) == brick_names(3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"block": 4}, "3 bricks make blocks 0 to 0"),
        ({"mag_min": 23.6, "mag_max": 23.5}, "mag_min 23.6 is not below mag_max 23.5"),
        ({"n_real": 200}, "do not fit into 160 pixels"),
    ],
)
def test_impossible_options_are_errors(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        build(tmp_path, **{"n_bricks": 3, "block_size": 3, **options})
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_one_line(tmp_path):
    result = skyproof(*words(tmp_path, block=4))
    assert result.returncode == 2
    assert "3 bricks make blocks 0 to 0" in one_line(result)


def test_number_counts_have_the_configured_slope():
    rng = np.random.default_rng(1)
    for slope in (0.0, 0.4):
        drawn = draw_magnitudes(100_000, 20.0, 23.0, slope, rng)
        assert drawn.min() >= 20
        assert drawn.max() <= 23
        faint, bright = ((drawn > 22) & (drawn < 23)).sum(), ((drawn > 20) & (drawn < 21)).sum()
        assert np.log10(faint / bright) / 2 == pytest.approx(slope, abs=0.01)


def test_placed_sources_keep_their_distance():
    candidates = np.random.default_rng(1).uniform(-0.5, 299.5, (5000, 2))
    x, y = positions_apart(candidates, 60, 19.0)
    assert len(x) == 60
    assert len(positions_apart(candidates[:50], 60, 19.0)[0]) < 50
    assert len(positions_apart(candidates, 0, 19.0)[0]) == 0
    apart = np.hypot(x[:, None] - x, y[:, None] - y)[~np.eye(60, dtype=bool)]
    assert apart.min() >= 19
    assert min(x.min(), y.min()) >= -0.5
    assert max(x.max(), y.max()) < 299.5
