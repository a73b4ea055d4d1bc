"""Out-of-fold predictions and the original's files of them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fitsio
import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from torch import nn

from skyproof.core.errors import InputError
from skyproof.core.formats import contents
from skyproof.core.stage import Context
from skyproof.proof.compare import compare
from skyproof.sysnet import infer as stage
from skyproof.sysnet.folds import TEST, TRAINING, write_folds
from skyproof.sysnet.members.losses import constant_densities, mean_loss, row_losses
from skyproof.sysnet.members.predict import predict, scaled
from skyproof.sysnet.options import Infer
from skyproof.sysnet.original.files import read_stats
from skyproof.sysnet.table import write_table
from tests.conftest import clean_environment, one_line, skyproof, tree_bytes
from tests.unit.sysnet.build.members import SEEDS, make_member, write_groups
from tests.unit.sysnet.build.table import FEATURES, TableFiles, make_folds, make_table, write_files

CPU = torch.device("cpu")


class Original(nn.Module):
    """The original's network, from its description: names of modules and order of layers."""

    def __init__(self, model, structure, n_features):
        super().__init__()
        self.model, (layers, units) = model, structure
        if model in ("lin", "linp"):
            self.hl1 = nn.Linear(n_features, 1)
            return
        sizes = [n_features, *[units] * (layers - 1), 1]
        self.fc = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(layers))
        self.bn = nn.ModuleList(nn.BatchNorm1d(units) for _ in range(layers - 1))

    def forward(self, x):
        if self.model in ("lin", "linp"):
            x = self.hl1(x)
        else:
            for fc, bn in zip(self.fc, self.bn, strict=False):
                x = bn(torch.relu(fc(x)))
            x = self.fc[-1](x)
        if self.model in ("dnnp", "linp"):
            return nn.functional.softplus(x)
        return torch.exp(x) if self.model == "dnnps" else x


def infer(files: TableFiles, out: Path, ranks: int = 1, **environment: str):
    outputs = [
        f"weights={out}/nn-weights.fits", f"metrics={out}/metrics.npz",
        f"history={out}/history.csv", f"lines={out}/train.log",
    ]  # fmt: skip
    return skyproof(
        "sysnet.infer", "--in", *files.words(), "--out", *outputs, ranks=ranks, **environment
    )


def infer_here(files: TableFiles, out: Path, **options: object) -> None:
    """Run the stage in this process, because another process takes seconds to import torch."""
    out.mkdir()
    outputs = SimpleNamespace(
        weights=out / "nn-weights.fits", metrics=out / "metrics.npz",
        history=out / "history.csv", lines=out / "train.log",
    )  # fmt: skip
    inputs = SimpleNamespace(table=files.table, folds=files.folds, members=[files.members])
    stage.run(inputs, outputs, Infer(**options), Context("sysnet.infer"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished inference: three folds, two chains, one feature that no network keeps."""
    folder = tmp_path_factory.mktemp("infer")
    files, members = write_files(folder, keep=(True, False, True))
    result = infer(files, folder / "out")
    assert result.returncode == 0, result.stderr
    return folder, files, members


@pytest.mark.parametrize("model", ["dnn", "dnnp", "dnnps", "lin", "linp"])
@pytest.mark.parametrize("structure", [(4, 20), (2, 3)])
def test_a_network_gives_what_the_originals_modules_give(model, structure):
    member = make_member(model=model, structure=structure)
    network = Original(model, structure, 3).eval()
    missing = network.load_state_dict(member.state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(x))[:, 0].numpy()
    np.testing.assert_allclose(predict(model, member.state, x, 32, CPU), expected, rtol=2e-6)


def test_a_prediction_does_not_depend_on_the_rows_behind_it():
    member = make_member(structure=(4, 20))
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    whole = predict("dnnp", member.state, x, 64, CPU)
    for n in (1, 63, 64, 65, 99):
        np.testing.assert_array_equal(predict("dnnp", member.state, x[:n], 64, CPU), whole[:n])


def test_features_are_scaled_in_double_and_masked():
    x = np.array([[1e9 + 1, 5.0]])
    seen = scaled(x, np.array([1e9, 0.0]), np.array([2.0, 1.0]), np.array([True, False]))
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, [[0.5, 0.0]])


def test_s07_weights_have_the_originals_layout(done):
    folder, _, members = done
    table, folds = make_table(), make_folds(make_table())
    weights = fitsio.read(folder / "out/nn-weights.fits")
    assert weights.dtype.descr == [("hpix", ">i8"), ("weight", ">f8", (2,))]
    with fits.open(folder / "out/nn-weights.fits") as file:
        assert file[1].columns.names == ["hpix", "weight"]
        assert [column.format for column in file[1].columns] == ["K", "2D"]
    rows = np.concatenate([folds.rows(fold, TEST) for fold in range(3)])
    np.testing.assert_array_equal(weights["hpix"], table.hpix[rows])
    for fold in range(3):
        where = slice(20 * fold, 20 * fold + 20)
        for chain in range(2):
            member = members[2 * fold + chain]
            x = scaled(
                table.features[folds.rows(fold, TEST)], member.shift, member.scale, member.keep
            )
            expected = predict(member.model, member.state, x, 4096, CPU)
            np.testing.assert_allclose(weights["weight"][where, chain], expected, rtol=1e-6)


def test_rows_may_be_sorted_by_pixel(done, tmp_path):
    for sort in (False, True):
        infer_here(done[1], tmp_path / str(sort), sort=sort)
    by_fold, by_pixel = (
        fitsio.read(tmp_path / f"{sort}/nn-weights.fits") for sort in (False, True)
    )
    assert (np.diff(by_fold["hpix"]) < 0).any()
    order = np.argsort(by_fold["hpix"])
    np.testing.assert_array_equal(by_pixel["hpix"], by_fold["hpix"][order])
    np.testing.assert_array_equal(by_pixel["weight"], by_fold["weight"][order])


def test_s08_metrics_have_the_originals_layout(done):
    folder, _, members = done
    table, folds = make_table(), make_folds(make_table())
    metrics = np.load(folder / "out/metrics.npz", allow_pickle=True)
    losses = metrics["losses"].item()
    assert list(losses) == ["train", "valid", "test"]
    assert np.shape(losses["train"]) == np.shape(losses["valid"]) == (3, 2, 4)
    assert np.shape(losses["test"]) == (3, 2)
    for fold in range(3):
        assert losses["valid"][fold][1] == members[2 * fold + 1].valid.tolist()
    base = metrics["base_losses"]
    assert [sorted(fold) for fold in base] == [
        ["base_test_loss", "base_train_loss", "base_valid_loss"]
    ] * 3
    assert list(metrics["seeds"]) == list(SEEDS[:2])

    # By hand: the original's constant is the mean label of the training rows, unweighted.
    train, test = folds.rows(1, TRAINING), folds.rows(1, TEST)
    expected = table.label[train].mean() * table.fracgood[test]
    by_hand = expected - table.label[test] * np.log(expected + 1e-8)
    by_hand = (table.fracgood[test] * by_hand).sum() / len(test)
    assert base[1]["base_test_loss"] == pytest.approx(by_hand, rel=1e-14)

    weights = fitsio.read(folder / "out/nn-weights.fits")["weight"][20:40, 1]
    of_test = table.label[test], table.fracgood[test]
    loss = mean_loss("pnll", "poisson", weights.astype(float), *of_test)
    assert losses["test"][1][1] == loss


def test_b04_the_better_constant_is_given_with_the_originals(done):
    """The mean label times fracgood is biased low: counts over observed fraction are not."""
    folder, _, _ = done
    metrics = np.load(folder / "out/metrics.npz", allow_pickle=True)
    for base, mle in zip(metrics["base_losses"], metrics["mle_losses"], strict=True):
        assert list(base) == list(mle)
    table = make_table()
    constants = constant_densities(table.label, table.fracgood)
    expected = {kind: (c * table.fracgood).sum() for kind, c in constants.items()}
    assert expected["mle"] == pytest.approx(table.label.sum(), rel=1e-12)
    assert expected["base"] < 0.8 * table.label.sum()


def test_s05_losses_of_three_rows_by_hand():
    density = np.array([1.0, 2.0, 0.5])
    label = np.array([1.0, 3.0, 0.0])
    fracgood = np.array([1.0, 0.5, 0.8])
    poisson = [1.0, 0.5 * (1.0 - 3.0 * np.log(1.0)), 0.8 * 0.4]
    np.testing.assert_allclose(
        row_losses("pnll", "poisson", density, label, fracgood), poisson, rtol=1e-7
    )
    original = [0.0, 0.5 * 4.0, 0.8 * 0.16]
    np.testing.assert_allclose(
        row_losses("mse", "original", density, label, fracgood), original, rtol=1e-12
    )
    weighted = [0.0, 0.5 * 16.0, 0.8 * 0.25]
    np.testing.assert_allclose(
        row_losses("mse", "poisson", density, label, fracgood), weighted, rtol=1e-12
    )


def test_two_metrics_are_compared_number_by_number(done, tmp_path):
    """Verify also compares pickled numbers: it reports the first difference and tolerances."""
    folder, _, members = done
    shifted = [replace(member, valid=member.valid * (1 + 1e-7)) for member in members]
    files, _ = write_files(tmp_path, keep=(True, False, True))
    infer_here(
        replace(files, members=write_groups(tmp_path / "shifted", shifted)), tmp_path / "out"
    )
    name = "out/metrics.npz"
    found = compare(tmp_path / name, folder / name, None)
    # Test losses may differ in the last digit: this process has other numerics than the command.
    assert [d.element for d in found if not d.element.startswith("losses.test")] == [
        f"losses.valid[{fold}][{chain}]" for fold in range(3) for chain in range(2)
    ]
    assert contents.fingerprint(folder / name)["content"]


def test_mean_and_standard_deviation_of_the_features_as_in_the_first_version(done):
    folder, _, members = done
    stats = read_stats(folder / "out/metrics.npz", 2)
    np.testing.assert_array_equal(stats["x"][0], members[4].shift)
    np.testing.assert_array_equal(stats["x"][1], members[4].scale)
    assert stats["y"] == (1.0, 0.5)


def test_history_has_one_row_per_epoch(done):
    folder, _, members = done
    history = pd.read_csv(folder / "out/history.csv")
    assert list(history) == ["fold", "chain", "seed", "epoch", "train", "valid", "learning_rate"]
    assert len(history) == 3 * 2 * 4
    one = history[(history.fold == 1) & (history.chain == 1)]
    assert (one.seed == SEEDS[1]).all()
    assert list(one.epoch) == [0, 1, 2, 3]
    np.testing.assert_array_equal(one.valid, members[3].valid)


def test_the_log_has_the_originals_lines(done):
    folder, _, _ = done
    text = (folder / "out/train.log").read_text().splitlines()
    number = r"-?\d+\.\d{6}"
    assert text[0] == "# of data: 60"
    assert text[1] == "partition_0 with (3, 5, 2, 1)"  # of three features, two are kept
    for line, name in zip(text[2:5], ("train", "valid", "test"), strict=True):
        assert re.fullmatch(f"base_{name}_loss: {number}", line)
    assert text[5] == f"# running training and evaluation with seed: {SEEDS[0]}"
    epoch = f"Epoch 0/3 train loss: {number} valid loss: {number} lr: {number}"
    assert re.fullmatch(epoch, text[6])
    assert re.fullmatch(f"best val loss: {number}, test loss: {number}", text[10])
    assert text[-2:] == ["wrote weights: nn-weights.fits", "wrote metrics: metrics.npz"]
    assert sum(line.startswith("partition_") for line in text) == 3


def test_b16_a_second_run_in_one_process_has_a_separate_log(tmp_path):
    """In the original the second run writes into the file of the first."""
    for name, n_chains in (("one", 1), ("two", 2)):
        files, _ = write_files(tmp_path / name, n_chains=n_chains)
        infer_here(files, tmp_path / name / "out")
    for name, n_chains in (("one", 1), ("two", 2)):
        text = (tmp_path / name / "out/train.log").read_text()
        assert text.count("# running training") == 3 * n_chains


def test_a_linear_network_is_named_as_in_the_original(tmp_path):
    files, _ = write_files(tmp_path, model="linp", n_chains=1)
    infer_here(files, tmp_path / "out")
    assert "partition_1 with (3, 1)" in (tmp_path / "out/train.log").read_text()
    weights = fitsio.read(tmp_path / "out/nn-weights.fits")
    assert weights["weight"].shape in ((60,), (60, 1))


def test_b15_snapshots_are_columns_by_chain_and_epoch(tmp_path):
    """The original lists files, so that 149 may come before 29."""
    files, members = write_files(tmp_path, snapshots=(149, 9, 29))
    infer_here(files, tmp_path / "out")
    weights = fitsio.read(tmp_path / "out/nn-weights.fits")["weight"]
    assert weights.shape == (60, 6)
    table, folds = make_table(), make_folds(make_table())
    member, rows = members[1], folds.rows(0, TEST)
    x = scaled(table.features[rows], member.shift, member.scale, member.keep)
    for column, epoch in zip((3, 4, 5), (9, 29, 149), strict=True):
        expected = predict(member.model, member.snapshots[epoch], x, 4096, CPU)
        np.testing.assert_allclose(weights[:20, column], expected, rtol=1e-6)
    losses = np.load(tmp_path / "out/metrics.npz", allow_pickle=True)["losses"].item()
    assert np.shape(losses["test"]) == (3, 2, 3)
    assert "(mean) test loss: " in (tmp_path / "out/train.log").read_text()


@pytest.mark.parametrize("ranks", [3, 4])
def test_s11_ranks_do_not_change_the_bytes(done, tmp_path, ranks):
    """B7: in the original fewer ranks than folds drop folds, and more of them crash."""
    folder, files, _ = done
    result = infer(files, tmp_path / "out", ranks=ranks)
    assert result.returncode == 0, result.stderr
    assert tree_bytes(tmp_path / "out") == tree_bytes(folder / "out")


def test_groups_and_hash_seeds_do_not_change_the_bytes(done, tmp_path):
    folder, _, _ = done
    files, _ = write_files(tmp_path, keep=(True, False, True), group_size=5)
    assert infer(files, tmp_path / "out", PYTHONHASHSEED="1").returncode == 0
    assert tree_bytes(tmp_path / "out") == tree_bytes(folder / "out")


def test_an_error_is_one_line_and_nothing_is_written(done, tmp_path):
    _, files, _ = done
    write_folds(tmp_path / "folds.fits", make_folds(make_table(seed=4)))
    result = infer(replace(files, folds=tmp_path / "folds.fits"), tmp_path / "out")
    assert result.returncode == 3
    assert not tree_bytes(tmp_path / "out")
    assert "folds.fits, field hpix: has other pixels than the table" in one_line(result)


def error_of(files: TableFiles, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        infer_here(files, out)
    return str(caught.value)


def test_members_of_another_number_of_folds_are_errors(done, tmp_path):
    _, files, members = done
    index = write_groups(tmp_path / "train", members[:4])
    line = error_of(replace(files, members=index), tmp_path / "out")
    assert "block-00000.json: is of 2 folds; expected 3, as the folds" in line


def test_members_with_other_features_are_errors(done, tmp_path):
    _, files, _ = done
    table = replace(make_table(), names=("a", "b", "dust"))
    write_table(tmp_path / "table.fits", table)
    line = error_of(replace(files, table=tmp_path / "table.fits"), tmp_path / "out")
    assert "field features: is a network of a, b, c; expected a, b, dust" in line


def test_a_damaged_member_is_an_error(done, tmp_path):
    _, files, members = done
    index = write_groups(tmp_path / "train", members)
    path = tmp_path / "train" / members[0].name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    line = error_of(replace(files, members=index), tmp_path / "out")
    assert f"{path.name}: has changed since it was written" in line


def test_the_metrics_can_be_read_without_this_package(done):
    folder, _, _ = done
    program = (
        "import numpy as np, sys; m = np.load(sys.argv[1], allow_pickle=True);"
        "print(len(m['losses'].item()['test']), m['base_losses'][0]['base_test_loss']);"
        "assert 'skyproof' not in sys.modules"
    )
    environment = clean_environment() | {"PYTHONPATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", program, folder / "out/metrics.npz"],
        env=environment, capture_output=True, text=True, timeout=60, check=True, cwd=folder,
    )  # fmt: skip
    assert result.stdout.startswith("3 ")


def test_names_are_those_of_the_table():
    assert tuple(make_table().names) == FEATURES
