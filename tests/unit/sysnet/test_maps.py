"""HEALPix maps of all formats are read as the same map, or are an error with its reason."""

from __future__ import annotations

from pathlib import Path

import fitsio
import healpy
import numpy as np
import pytest

from skyproof.core.errors import InputError
from skyproof.sysnet.maps import regrid
from skyproof.sysnet.maps.mapfile import HealpixMap, NotStated, read_map
from skyproof.sysnet.regions import MapForm

NSIDE = 16
N = 12 * NSIDE**2


def smooth(nside: int = NSIDE, frame: str = "C") -> np.ndarray:
    """A smooth map, RING, of a fixed pattern on the sky, in the given frame."""
    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    if frame != "C":
        lon, lat = healpy.Rotator(coord=frame + "C")(lon, lat, lonlat=True)
    x, y, z = healpy.ang2vec(lon, lat, lonlat=True).T
    return 3 + x + 0.5 * y * z - 0.7 * z


def nested(ring: np.ndarray) -> np.ndarray:
    return healpy.reorder(ring, r2n=True)


def form(**words: object) -> MapForm:
    return MapForm.model_validate(words)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, tuple[Path, MapForm]]:
    """The same map in ten layouts, each with the properties missing from its file."""
    ring, made = smooth(), {}

    def place(name: str, **open_: object) -> Path:
        made[name] = (tmp_path / name, form(**open_))
        return tmp_path / name

    healpy.write_map(place("ring.fits"), ring, coord="C", dtype=np.float64)
    healpy.write_map(place("nested.fits"), nested(ring), nest=True, coord="C", dtype=np.float64)
    healpy.write_map(place("ring.fits.gz"), ring, coord="C", dtype=np.float64)
    healpy.write_map(place("partial.fits"), ring, coord="C", partial=True, dtype=np.float64)
    healpy.write_map(place("two.fits", column="B"), [0 * ring, ring], coord="C", dtype=np.float64,
                     column_names=["A", "B"])  # fmt: skip
    np.save(place("ring.npy", ordering="RING", frame="C"), ring)
    np.save(place("nested.npy", ordering="NESTED", frame="C"), nested(ring))
    np.savetxt(place("nested.dat", ordering="NESTED", frame="C"), nested(ring), fmt="%.17g")
    pixels = np.random.default_rng(1).permutation(N)
    np.savetxt(place("pairs.txt", ordering="RING", frame="C"),
               np.column_stack([pixels, ring[pixels]]), fmt="%.17g")  # fmt: skip
    rows = np.zeros(N, [("HPXPIXEL", "i4"), ("STARDENS", "f8")])
    rows["HPXPIXEL"], rows["STARDENS"] = np.arange(N), nested(ring)
    fitsio.write(str(place("bare.fits", ordering="NESTED", frame="C")), rows)
    return made


def test_all_layouts_are_the_same_map(files):
    for name, (path, open_) in files.items():
        found = read_map(path, open_)
        assert (found.nside, found.frame) == (NSIDE, "C"), name
        np.testing.assert_array_equal(found.values, smooth(), err_msg=name)


def test_unseen_and_nan_are_not_seen(tmp_path: Path):
    ring = smooth()
    ring[:100] = healpy.UNSEEN
    ring[100:150] = np.nan
    healpy.write_map(tmp_path / "m.fits", ring, coord="C", dtype=np.float32)
    assert (~read_map(tmp_path / "m.fits", form()).seen).sum() == 150


def test_pixels_that_a_partial_map_lacks_are_not_seen(tmp_path: Path):
    rows = np.zeros(500, [("PIXEL", "i8"), ("V", "f8")])
    rows["PIXEL"] = np.arange(500) * 3
    rows["V"] = smooth()[rows["PIXEL"]]
    header = {"NSIDE": NSIDE, "ORDERING": "RING", "COORDSYS": "G"}
    fitsio.write(str(tmp_path / "m.fits"), rows, header=header)
    found = read_map(tmp_path / "m.fits", form())
    np.testing.assert_array_equal(np.flatnonzero(found.seen), rows["PIXEL"])
    assert found.frame == "G"


def write_rows(path: Path, pixels: list[int], **header: object) -> Path:
    rows = np.zeros(len(pixels), [("PIXEL", "i8"), ("V", "f8")])
    rows["PIXEL"] = pixels
    rows["V"] = 1.0
    fitsio.write(str(path), rows, header={"ORDERING": "RING", "COORDSYS": "C", **header})
    return path


def test_a_property_that_nothing_states_is_an_error(tmp_path: Path):
    np.save(tmp_path / "m.npy", smooth())
    with pytest.raises(
        NotStated, match=r"field ordering: is not in the file; expected a value in the conf"
    ):
        read_map(tmp_path / "m.npy", form(frame="C"))
    with pytest.raises(NotStated, match="field frame: is not in the file"):
        read_map(tmp_path / "m.npy", form(ordering="RING"))
    with pytest.raises(NotStated, match="field nside: is not in the file"):
        read_map(write_rows(tmp_path / "m.fits", [1, 2]), form())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ordering": "NESTED"}, "field ordering: is RING in the header, NESTED in the conf"),
        ({"frame": "G"}, "field frame: is C in the header, G in the configuration"),
        ({"nside": 32}, "field nside: is 16 in the header, 32 in the configuration"),
        ({"column": "X"}, "field column X: is missing"),
    ],
)
def test_a_configuration_that_contradicts_the_file_is_an_error(tmp_path: Path, words, message):
    healpy.write_map(tmp_path / "m.fits", smooth(), coord="C", dtype=np.float64)
    with pytest.raises(InputError, match=message):
        read_map(tmp_path / "m.fits", form(**words))


@pytest.mark.parametrize("said", ["RING", "NESTED"])
def test_an_order_that_the_pixels_contradict_is_an_error(tmp_path: Path, said: str):
    values = nested(smooth()) if said == "RING" else smooth()
    values += np.random.default_rng(1).normal(0, 0.3, N)  # noise does not hide it
    np.save(tmp_path / "m.npy", values)
    with pytest.raises(InputError, match=f"is stated to be {said}, but is smooth only if it is"):
        read_map(tmp_path / "m.npy", form(ordering=said, frame="C"))


def test_noise_may_be_in_any_order(tmp_path: Path):
    np.save(tmp_path / "m.npy", np.random.default_rng(1).normal(size=N))
    for said in ("RING", "NESTED"):
        read_map(tmp_path / "m.npy", form(ordering=said, frame="C"))


def test_bad_pixels_and_columns_are_errors(tmp_path: Path):
    with pytest.raises(InputError, match="record 1, field pixel: is 3072; expected 0 to 3071"):
        read_map(write_rows(tmp_path / "a.fits", [0, 3072], NSIDE=NSIDE), form())
    with pytest.raises(InputError, match="field pixel: 7 is repeated"):
        read_map(write_rows(tmp_path / "b.fits", [7, 7], NSIDE=NSIDE), form())
    healpy.write_map(tmp_path / "c.fits", [smooth(), smooth()], coord="C", dtype=np.float64,
                     column_names=["A", "B"])  # fmt: skip
    with pytest.raises(InputError, match=r"has 2 columns \(A, B\)"):
        read_map(tmp_path / "c.fits", form())
    np.save(tmp_path / "d.npy", smooth()[:-1])
    with pytest.raises(InputError, match="has 3071 values; expected 3072"):
        read_map(tmp_path / "d.npy", form(ordering="RING", frame="C"))
    np.save(tmp_path / "e.npy", np.full(N, np.nan))
    with pytest.raises(InputError, match="has no defined pixel"):
        read_map(tmp_path / "e.npy", form(ordering="RING", frame="C"))
    (tmp_path / "f.fits").write_text("no map")
    with pytest.raises(InputError, match="cannot be read"):
        read_map(tmp_path / "f.fits", form())


def a_map(values: np.ndarray, frame: str = "C") -> HealpixMap:
    return HealpixMap(Path("m.fits"), values, healpy.get_nside(values), frame)


def families(fine: int, coarse: int) -> np.ndarray:
    """The finer pixels of each coarser one, [12 coarse^2, k], found from positions."""
    parent = healpy.ang2pix(coarse, *healpy.pix2ang(fine, np.arange(12 * fine**2)))
    return np.argsort(parent, kind="stable").reshape(12 * coarse**2, -1)


@pytest.mark.parametrize(("fine", "coarse"), [(64, 16), (32, 8)])
def test_templates_are_averaged_over_what_is_seen_and_copied(fine: int, coarse: int):
    rng = np.random.default_rng(fine)
    values = rng.lognormal(0, 2, 12 * fine**2)
    values[rng.random(len(values)) < 0.3] = np.nan
    children = families(fine, coarse)
    values[children[7]] = np.nan
    found = regrid.intensive(a_map(values), coarse, "C")
    assert np.flatnonzero(np.isnan(found)).tolist() == [7]
    wanted = np.array([np.mean(v[np.isfinite(v)]) for v in np.delete(values[children], 7, axis=0)])
    np.testing.assert_allclose(np.delete(found, 7), wanted, rtol=1e-14)
    copied = regrid.intensive(a_map(found), fine, "C")
    np.testing.assert_array_equal(copied[children], np.repeat(found[:, None], 16, axis=1))


def test_a_map_at_its_own_resolution_is_unchanged():
    values = np.random.default_rng(1).normal(size=12 * 16**2)
    values[5] = np.nan
    assert regrid.intensive(a_map(values), 16, "C").tobytes() == values.tobytes()


def test_interpolation_is_nearer_to_the_truth_than_copies():
    copied = regrid.intensive(a_map(smooth(16)), 64, "C")
    between = regrid.intensive(a_map(smooth(16)), 64, "C", smooth=True)
    truth = smooth(64)
    # Measured: rms 0.028 and 0.0009.
    assert np.std(copied - truth) > 0.01
    assert np.std(between - truth) < 0.003


@pytest.mark.parametrize("frame", ["G", "E"])
def test_rotation_finds_the_same_sky(frame: str):
    turned = regrid.intensive(a_map(smooth(64, frame), frame), 32, "C")
    # Measured, of a map with a scatter of 0.74: rms 0.0002, at most 0.0065 (near the poles).
    assert np.std(turned - smooth(32)) < 0.0005
    np.testing.assert_allclose(turned, smooth(32), atol=0.01)


def test_unseen_pixels_have_no_part_in_averages_and_interpolation():
    ring = smooth(32)
    hidden = np.zeros(len(ring), bool)
    hidden[:2000] = True
    ring[hidden] = np.nan
    for found, truth in (
        (regrid.intensive(a_map(ring), 16, "C"), smooth(16)),
        (regrid.intensive(a_map(ring), 32, "G"), smooth(32, "G")),
    ):
        seen = np.isfinite(found)
        assert 0.5 < seen.mean() < 0.95
        np.testing.assert_allclose(found[seen], truth[seen], atol=0.1)


def test_counts_are_summed_and_never_refined_or_rotated():
    counts = np.random.default_rng(2).poisson(5, 12 * 32**2).astype(float)
    counts[:3] = np.nan
    children = families(32, 16)
    counts[children[9]] = np.nan
    coarse = regrid.extensive(a_map(counts), 16, "C")
    assert np.flatnonzero(np.isnan(coarse)).tolist() == [9]
    np.testing.assert_array_equal(np.nan_to_num(coarse), np.nansum(counts[children], axis=1))
    with pytest.raises(InputError, match="cannot be refined to 64"):
        regrid.extensive(a_map(counts), 64, "C")
    with pytest.raises(InputError, match="cannot be rotated to G"):
        regrid.extensive(a_map(counts), 32, "G")


def test_undefined_pixels_are_not_observed():
    fraction = np.ones(12 * 32**2)
    children = np.flatnonzero(healpy.ring2nest(32, np.arange(len(fraction))) // 4 == 9)
    fraction[children[:3]] = np.nan
    coarse = regrid.fractions(a_map(fraction), 16, "C")
    assert coarse[healpy.nest2ring(16, 9)] == 0.25
    assert (np.delete(coarse, healpy.nest2ring(16, 9)) == 1).all()
