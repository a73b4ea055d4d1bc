"""The stage obiwan.evaluate on small synthetic splits and scores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skyproof.core.atomic import sha256_of
from skyproof.core.errors import InputError
from skyproof.core.formats import write
from skyproof.core.stage import Context
from skyproof.obiwan import evaluate
from skyproof.obiwan.dataset import split_names
from skyproof.obiwan.options import Evaluate
from skyproof.obiwan.stamps.geometry import STAMP
from skyproof.obiwan.survey import stamp_dtype
from skyproof.obiwan.verdict import figures, rule

PICTURES = ("mosaic", "roc", "magnitude", "curves")
OUTPUTS = ("metrics", "verdict", *PICTURES)


def catalogue(
    rng: np.random.Generator,
    brick: str,
    n: int,
    bands: str,
    *,
    colour_offset: float = 0.0,
    brighter: float = 0.0,
) -> np.ndarray:
    """Return a table of n stamps, half of them fake, in random order."""
    table = np.zeros(n, stamp_dtype(bands))
    table["id"], table["brick"], table["rs"] = rng.permutation(n), brick, "rs0"
    table["label"] = rng.permutation(np.arange(n) % 2)
    fake = table["label"] == 1
    table["x"], table["y"] = rng.uniform(40, 960, (2, n))
    for name in ("x", "y"):
        table[f"d{name}"] = table[name] - np.floor(table[name] + 0.5)
    table["type"] = rng.choice([b"EXP", b"REX", b"PSF"], n)
    mag = rng.uniform(20, 23.5, n) - brighter * fake
    for number, band in enumerate(bands):
        table[f"mag_{band}"] = mag - number * (0.5 + 0.2 * rng.normal(size=n))
        table[f"psfsize_{band}"] = rng.normal(1.2, 0.05) if band != "z" else np.nan
        table[f"ivar_{band}"] = rng.normal(900, 30, n)
    table[f"mag_{bands[0]}"] += np.where(fake, colour_offset, 0)
    table["r_half"] = rng.lognormal(-0.7, 0.3, n)
    return table


def pixels(rng: np.random.Generator, table: np.ndarray, bands: str) -> np.ndarray:
    """Return stamps [n, 64, 64, 2 x bands]: a Gaussian galaxy on noise."""
    x = np.empty((len(table), STAMP, STAMP, 2 * len(bands)), np.float16)
    axis = np.arange(STAMP)
    for row, entry in enumerate(table):
        r2 = (axis[:, None] - 32 - entry["dx"]) ** 2 + (axis[None, :] - 32 - entry["dy"]) ** 2
        for number, band in enumerate(bands):
            sigma = 1.5 + entry["r_half"] / 0.262 / 2
            flux = 10 ** ((22.5 - entry[f"mag_{band}"]) / 2.5)
            galaxy = flux * np.exp(-r2 / 2 / sigma**2) / (2 * np.pi * sigma**2)
            noise = rng.normal(size=r2.shape) / np.sqrt(entry[f"ivar_{band}"])
            x[row, ..., 2 * number] = galaxy + noise
            x[row, ..., 2 * number + 1] = entry[f"ivar_{band}"]
    return x


def entry_of(folder: Path, path: str) -> dict[str, object]:
    """Return the entry of one file in a block index."""
    file = folder / path
    return {"path": path, "size": file.stat().st_size, "sha256": sha256_of(file)}


def make_case(
    folder: Path,
    *,
    signal: float = 0.0,
    bands: str = "grz",
    n_train: int = 3,
    n_test: int = 5,
    rows: int = 60,
    seed: int = 1,
    score_from: str = "",
    **planted: float,
) -> SimpleNamespace:
    """Write a split with bricks of both parts, scores and a history; return the stage's inputs.

    Scores follow the label by `signal` (in units of their spread), or minus column `score_from`.
    """
    rng = np.random.default_rng(seed)
    items, tested = {}, []
    for number in range(n_train + n_test):
        brick, part = f"000{number}m002", "train" if number < n_train else "test"
        table = catalogue(rng, brick, rows, bands, **planted)
        paths = dict(zip(("x", "y", "catalog"), split_names(brick, part, 1), strict=True))
        (folder / paths["x"]).parent.mkdir(parents=True)
        if part == "test":
            tested.append(table)
            write.npy(folder / paths["x"], pixels(rng, table, bands))
        else:
            write.npy(folder / paths["x"], np.zeros((rows, 1), np.float16))
        write.npy(folder / paths["y"], table["label"].astype("f8"))
        write.fits_table(folder / paths["catalog"], table)
        entries = [entry_of(folder, path) for path in paths.values()]
        items[brick] = {"info": {}, "files": entries}
    index = folder / "block-00000.json"
    write.json(index, {"format": "skyproof-record-1", "items": items})

    table = np.concatenate(tested)
    level = -table[score_from] if score_from else signal * table["label"]
    noise = rng.normal(size=len(table))
    logit = (level - level.mean() + noise) * 1.2
    columns = {name: table[name] for name in table.dtype.names}
    for name in ("brick", "rs", "type"):
        columns[name] = np.char.decode(columns[name])
    columns["score"] = 1 / (1 + np.exp(-logit))
    write.parquet(folder / "scores.parquet", columns)

    step = np.arange(1, 401)
    write.csv(folder / "history.csv", {
        "step": step, "epoch": (step - 1) // 100 + 1,
        "loss": 0.7 * np.exp(-signal * step / 300) + 0.03 * rng.normal(size=400),
        "accuracy": np.clip(0.5 + 0.3 * signal * step / 800 + 0.1 * rng.normal(size=400), 0, 1),
    })  # fmt: skip
    return SimpleNamespace(
        scores=folder / "scores.parquet", split=[index], history=folder / "history.csv"
    )


def evaluated(
    inputs: SimpleNamespace, folder: Path, **options: object
) -> tuple[dict, SimpleNamespace]:
    """Run the stage; return its metrics and its outputs."""
    folder.mkdir(exist_ok=True)
    suffix = {"metrics": "json", "verdict": "md"}
    outputs = SimpleNamespace(
        **{name: folder / f"{name}.{suffix.get(name, 'png')}" for name in OUTPUTS}
    )
    settings = Evaluate(**{"n_bootstrap": 200, "n_permutations": 200, **options})
    evaluate.run(inputs, outputs, settings, Context("obiwan.evaluate", seed=settings.seed))
    return json.loads(outputs.metrics.read_text()), outputs


def test_o12_all_metrics_exist_and_a_run_repeats_byte_for_byte(tmp_path: Path) -> None:
    """o12: accuracy and AUC of the test part, with all documented metrics."""
    inputs = make_case(tmp_path, signal=1.5)
    metrics, outputs = evaluated(inputs, tmp_path / "a")
    assert {
        "n", "bricks", "accuracy", "auc", "p_value", "metadata_auc", "matched_auc", "by_magnitude",
        "calibration", "baselines", "verdict", "statement",
    } <= set(metrics)  # fmt: skip
    assert (metrics["n"], metrics["n_fake"], metrics["bricks"]) == (300, 150, 5)
    for name in ("accuracy", "auc", "metadata_auc", "matched_auc"):
        assert 0 <= metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"] <= 1
    assert len(metrics["by_magnitude"]) == 6
    assert metrics["baselines"] == {"majority_class": "real", "majority_accuracy": 0.5}
    assert all(row["score"] >= 0.5 for row in metrics["most_confident"]["fake"])
    text = outputs.verdict.read_text()
    assert metrics["statement"][1:] in text
    for name in PICTURES:
        assert getattr(outputs, name).read_bytes().startswith(b"\x89PNG")

    _, again = evaluated(inputs, tmp_path / "b")
    for name in OUTPUTS:
        assert getattr(outputs, name).read_bytes() == getattr(again, name).read_bytes(), name


def quick(
    inputs: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: object
) -> dict:
    """Return the metrics without drawing."""
    monkeypatch.setattr(evaluate, "draw", lambda *arguments: None)
    return evaluated(inputs, folder / "out", **options)[0]


def test_o14_null_scores_are_indistinguishable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """o14: of ten null samples at most two are distinguished (the error rate is about 5 %)."""
    verdicts = []
    for seed in range(10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        metrics = quick(make_case(folder, seed=seed, rows=40, n_train=4), folder, monkeypatch)
        verdicts.append(metrics["verdict"])
    assert verdicts.count("indistinguishable") >= 8  # measured 10 of 10, and 54 of 60
    assert metrics["auc"]["low"] < 0.5 < metrics["auc"]["high"]


def test_o15_a_planted_difference_in_appearance_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """o15: scores follow the label, the catalogue does not: appearance."""
    metrics = quick(make_case(tmp_path, signal=1.5), tmp_path, monkeypatch)
    assert metrics["verdict"] == "appearance"
    assert "distinguished by appearance" in metrics["statement"]
    assert metrics["auc"]["low"] > 0.5


def test_a_difference_in_brightness_alone_is_named_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores follow the magnitude only, and injected galaxies are brighter: match first."""
    inputs = make_case(tmp_path, brighter=0.7, score_from="mag_g", rows=100)
    metrics = quick(inputs, tmp_path, monkeypatch)
    assert metrics["verdict"] == "metadata"
    assert "match the samples first" in metrics["statement"]
    assert metrics["auc"]["low"] > 0.5
    assert metrics["matched_auc"]["low"] < 0.5 < metrics["matched_auc"]["high"]
    assert metrics["telling_columns"][0]["column"].startswith("mag_")


def test_one_brick_of_two_bands_is_judged_with_a_caution(tmp_path: Path) -> None:
    metrics, outputs = evaluated(
        make_case(tmp_path, signal=1.5, bands="gz", n_test=1, n_train=2),
        tmp_path / "out",
        bands="gz",
    )
    assert metrics["auc"]["unit"] == "row"
    assert not metrics["auc"]["trusted"]
    assert "all rows are from one brick" in outputs.verdict.read_text()


def test_patches_of_one_brick_are_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = quick(make_case(tmp_path, n_test=1), tmp_path, monkeypatch, patch_pixels=500)
    assert metrics["bricks"] == 1
    assert metrics["groups"] == 4
    assert metrics["auc"]["unit"] == "group"


def test_without_training_rows_there_is_no_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_case(tmp_path, signal=1.5, n_train=0)
    metrics = quick(inputs, tmp_path, monkeypatch, patch_pixels=500)
    assert metrics["metadata_auc"] is None
    assert metrics["matched_auc"] is None
    assert "no control was possible" in metrics["statement"]


def test_bricks_of_both_parts_are_a_caution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_case(tmp_path)
    index = json.loads(inputs.split[0].read_text())
    names = sorted(index["items"])
    shared = split_names(names[-1], "train", 1)
    for source, target in zip(split_names(names[0], "train", 1), shared, strict=True):
        (tmp_path / target).write_bytes((tmp_path / source).read_bytes())
        entry = entry_of(tmp_path, target)
        index["items"][names[-1]]["files"].append(entry)
    table = catalogue(np.random.default_rng(0), names[-1], 60, "grz")
    write.fits_table(tmp_path / shared[2], table)
    entry["size"] = (tmp_path / shared[2]).stat().st_size
    write.json(inputs.split[0], index)
    metrics = quick(inputs, tmp_path, monkeypatch)
    assert metrics["groups_in_training"] == 1
    assert "may have memorised their sky" in rule.page(metrics, "g")


def rewritten(inputs: SimpleNamespace, change: object, rows: slice = slice(None)) -> None:
    """Rewrite the scores with some rows and the columns that `change(columns)` returns."""
    import pandas as pd

    frame = pd.read_parquet(inputs.scores)[rows]
    columns = {name: frame[name].to_numpy() for name in frame}
    write.parquet(inputs.scores, change(columns))  # type: ignore[operator]


def without_mag_z(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if name != "mag_z"}


@pytest.mark.parametrize(
    ("change", "rows", "words"),
    [
        (lambda c: {**c, "mag_g": np.full(300, np.nan)}, slice(None), "mag_g: is unknown in all"),
        (without_mag_z, slice(None), "field mag_z: has no such column"),
        (lambda c: c, slice(0, 0), "has no row"),
        (lambda c: {**c, "label": np.ones(300, "u1")}, slice(None), "all 300 rows are fake"),
        (lambda c: {**c, "label": np.full(300, 2, "u1")}, slice(None), "row 0, field label: is 2"),
        (lambda c: {**c, "score": np.r_[0.5, np.nan, np.full(298, 0.5)]}, slice(None),
         "record row 1, field score: is nan"),
        (lambda c: {**c, "id": c["id"] + 1000}, slice(None), "is not in the test part"),
    ],
)  # fmt: skip
def test_bad_scores_are_errors_in_one_line(
    tmp_path: Path, change: object, rows: slice, words: str
) -> None:
    inputs = make_case(tmp_path)
    rewritten(inputs, change, rows)
    with pytest.raises(InputError, match=words):
        evaluated(inputs, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("scores", b"", "cannot be read"),
        ("scores", b"no parquet", "cannot be read"),
        ("history", b"", "cannot be read"),
        ("history", b"step,epoch,loss\n1,1,0.7\n", "field accuracy: has no such column"),
        ("history", b"step,epoch,loss,accuracy\n", "has no step"),
        (
            "history",
            b"step,epoch,loss,accuracy\n1,1,x,0.5\n",
            "field loss: has values that are not",
        ),
    ],
)
def test_bad_files_are_errors_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    inputs = make_case(tmp_path, rows=10)
    getattr(inputs, name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        evaluated(inputs, tmp_path / "out")
    assert str(getattr(inputs, name)) in str(caught.value)


def test_constant_scores_give_a_verdict_without_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_case(tmp_path)
    rewritten(inputs, lambda columns: {**columns, "score": np.full(300, 0.5)})
    metrics = quick(inputs, tmp_path, monkeypatch)
    assert metrics["verdict"] == "indistinguishable"
    assert (metrics["auc"]["value"], metrics["p_value"]) == (0.5, 1.0)
    assert not metrics["auc"]["trusted"]
    assert "every row is classified as injected" in rule.page(metrics, "g")


def fake_metrics(p: float, auc: float, control: float | None, matched_low: float | None) -> dict:
    figure = {"low": 0.4, "high": 0.9, "value": auc}
    return {
        "confidence": 0.95, "p_value": p, "auc": {**figure, "null_mean": 0.5}, "n": 10, "bricks": 2,
        "metadata_auc": None if control is None else {**figure, "p_value": control},
        "matched_auc": None if matched_low is None else {**figure, "low": matched_low},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("p", "auc", "control", "matched_low", "expected"),
    [
        (0.05, 0.6, 0.005, 0.6, "indistinguishable"),
        (0.05, 0.6, 0.004, 0.6, "metadata"),
        (0.04, 0.4, 0.5, 0.3, "reversed"),
        (0.04, 0.6, 0.05, 0.3, "appearance"),
        (0.04, 0.6, None, None, "unexplained"),
        (0.04, 0.6, 0.04, 0.51, "appearance and metadata"),
        (0.04, 0.6, 0.04, 0.49, "metadata"),
        (0.04, 0.6, 0.04, None, "metadata"),
    ],
)
def test_the_rule_of_the_verdict(
    p: float, auc: float, control: float | None, matched_low: float | None, expected: str
) -> None:
    metrics = fake_metrics(p, auc, control, matched_low)
    assert rule.judge(metrics) == expected
    assert f"AUC {auc:.2f} [0.40, 0.90]" in rule.statement({**metrics, "verdict": expected})


def test_pairs_have_similar_magnitudes_from_bright_to_faint() -> None:
    rng = np.random.default_rng(4)
    magnitudes, labels = rng.uniform(20, 24, 400), np.arange(400) % 2
    magnitudes[:4] = np.nan
    rows = figures.choose_pairs(magnitudes, labels)
    assert len(rows) == len(set(rows)) == 10
    assert (labels[rows] == np.tile([0, 1], 5)).all()
    assert np.abs(np.diff(magnitudes[rows].reshape(5, 2))).max() < 0.1
    assert (np.diff(magnitudes[rows][::2]) > 0).all()
    assert len(figures.choose_pairs(np.array([21.0, 22.0, 23.0]), np.array([0, 0, 1]))) == 2


def test_the_mosaic_shows_x_along_the_horizontal() -> None:
    """A bright pixel at x = 50, y = 10 of the array [x, y] is at column 50, row 10 of the panel."""
    stamp = np.random.default_rng(1).normal(0, 0.01, (2, STAMP, STAMP, 2))
    stamp[:, 50, 10, 0] = 9.0
    rows = {"label": np.array([0, 1]), "score": np.array([0.2, 0.8]), "mag_g": np.full(2, 20.0)}
    figure = figures.mosaic(stamp, rows, "g")
    shown = figure.axes[1].images[0].get_array()
    assert np.unravel_index(np.argmax(shown), shown.shape) == (10, 50)
