"""The original's checkpoints: written, read back safely, used from Python (s09)."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import fitsio
import numpy as np
import pytest
import torch

from skyproof.core.blocks import read_index
from skyproof.core.errors import InputError, UsageError
from skyproof.sysnet.api import TrainedModel
from skyproof.sysnet.members.member import read_member
from skyproof.sysnet.members.predict import predict, scaled
from skyproof.sysnet.original.checkpoints import (
    best_checkpoint,
    read_checkpoint,
    snapshot_checkpoint,
)
from tests.conftest import skyproof, tree_bytes
from tests.unit.sysnet.build.members import SEEDS, make_member
from tests.unit.sysnet.build.table import make_table, write_files
from tests.unit.sysnet.test_infer import Original, infer_here

NAME = f"model_1_{SEEDS[0]}"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Members with snapshots, exported by a command, and the predictions of sysnet.infer."""
    folder = tmp_path_factory.mktemp("export")
    files, members = write_files(folder, n_chains=1, snapshots=(1, 3))
    words = ["--in", f"members={files.members}", "--out", f"export={folder}/export/export.json"]
    result = skyproof("sysnet.export", *words, "--do-tar", "true")
    assert result.returncode == 0, result.stderr
    return folder, files, members


def test_the_layout_is_the_originals(done):
    folder, _, _ = done
    names = {name for name in tree_bytes(folder / "export") if name.startswith(NAME)}
    assert names == {
        f"{NAME}/best.pth.tar", f"{NAME}/snapshot_1.pth.tar", f"{NAME}/snapshot_3.pth.tar",
        f"{NAME}/loss_{NAME}.png",
    }  # fmt: skip
    assert len(read_index(folder / "export/export.json")) == 4  # three members, the archive


def test_the_bytes_are_those_of_any_other_process(done):
    folder, _, members = done
    made = (folder / f"export/{NAME}/best.pth.tar").read_bytes()
    assert made == best_checkpoint(members[1])
    assert made == best_checkpoint(read_member(folder / "train" / members[1].name))
    snapshot = (folder / f"export/{NAME}/snapshot_3.pth.tar").read_bytes()
    assert snapshot == snapshot_checkpoint(members[1], 3)


def test_the_archive_holds_the_same_files_without_times(done):
    folder, _, _ = done
    archive = folder / "export/models.tar.gz"
    assert archive.read_bytes()[4:8] == bytes(4)  # the time in gzip's header
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == 3 * 3
        assert all((m.mtime, m.uid, m.uname) == (0, 0, "") for m in tar.getmembers())
        for name in tar.getnames():
            assert tar.extractfile(name).read() == (folder / "export" / name).read_bytes()


@pytest.mark.parametrize("model", ["dnn", "dnnp", "dnnps", "lin", "linp"])
def test_the_originals_modules_optimiser_and_scheduler_take_it(tmp_path, model):
    """As the original restores: load_state_dict on each, strictly."""
    member = make_member(model=model, structure=(4, 20), n_epochs=20)
    (tmp_path / "best.pth.tar").write_bytes(best_checkpoint(member))
    content = read_checkpoint(tmp_path / "best.pth.tar")
    assert list(content) == [
        "epoch", "state_dict", "optim_dict", "scheduler_dict", "best_val_loss", "stats"
    ]  # fmt: skip
    assert (content["epoch"], content["best_val_loss"]) == (19, 0.0)
    network = Original(model, (4, 20), 3)
    assert list(content["state_dict"]) == list(network.state_dict())
    network.load_state_dict(content["state_dict"])
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0)
    optimiser.load_state_dict(content["optim_dict"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=10, T_mult=2)
    scheduler.load_state_dict(content["scheduler_dict"])
    assert optimiser.param_groups[0]["lr"] == 0.01
    assert (scheduler.T_i, scheduler.T_cur) == (20, pytest.approx(9 + 6 / 7))
    names = [name for name, _ in network.named_parameters()]
    for number, name in enumerate(names):
        moments = optimiser.state_dict()["state"][number]
        assert moments["step"] == 20 * 7
        assert torch.equal(moments["exp_avg"], member.optimiser[f"exp_avg.{name}"]), name
    network.train()
    network(torch.rand(8, 3)).sum().backward()
    optimiser.step()


def test_plain_torch_reads_it_without_unpickling_code(done):
    """Besides tensors only numpy's array is named, which torch >= 2.6 must be told to allow."""
    folder, _, _ = done
    path = folder / f"export/{NAME}/best.pth.tar"
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert {name.rpartition(".")[2] for name in named} <= {"ndarray", "_reconstruct", "dtype"}


def test_s09_member_and_checkpoint_predict_the_same(done, tmp_path):
    folder, files, members = done
    table = make_table()
    member = members[1]
    ours = TrainedModel("dnnp", folder / "train" / member.name, (3, 5), num_features=3)
    theirs = TrainedModel("dnnp", folder / f"export/{NAME}/best.pth.tar", (3, 5), 3)
    hpix, density = theirs.forward(files.table, axes=[0, 1, 2])
    np.testing.assert_array_equal(hpix, table.hpix)
    np.testing.assert_array_equal(density, ours.forward(files.table)[1])
    x = scaled(table.features, member.shift, member.scale, member.keep)
    expected = predict("dnnp", member.state, x, 4096, torch.device("cpu"))
    np.testing.assert_array_equal(density, expected)
    fields = fitsio.read(files.table)
    np.testing.assert_array_equal(density, theirs.forward(fields, [0, 1, 2])[1])

    # The first version of the original: fold as third word, statistics from metrics.npz.
    infer_here(files, tmp_path / "out")
    first = TrainedModel("dnnp", folder / f"export/{NAME}/best.pth.tar", 1, (3, 5), 3)
    again = first.forward(tmp_path / "out/metrics.npz", files.table)
    np.testing.assert_array_equal(again[1], density)


def test_snapshots_predict_too(done):
    folder, files, members = done
    table = make_table()
    path = folder / f"export/{NAME}/snapshot_1.pth.tar"
    member = members[1]
    x = scaled(table.features, member.shift, member.scale, member.keep)
    expected = predict("dnnp", member.snapshots[1], x, 4096, torch.device("cpu"))
    found = TrainedModel("dnnp", path, (3, 5), num_features=3).forward(files.table)
    np.testing.assert_array_equal(found[1], expected)


def written_by_the_original(path: Path) -> None:
    """Write a file as the original's save_checkpoint: torch.save of the states of modules."""
    torch.manual_seed(1)
    network = Original("dnnp", (4, 20), 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=10, T_mult=2)
    network(torch.rand(8, 2)).sum().backward()
    optimiser.step()
    features = make_table().features[:, :2]
    stats = {
        "x": (features.mean(0), features.std(0)),
        "y": (np.mean(np.ones(3)), np.std(np.ones(3))),
    }
    content = {
        "epoch": 29,
        "state_dict": network.state_dict(),
        "optim_dict": optimiser.state_dict(),
        "scheduler_dict": scheduler.state_dict(),
        "best_val_loss": np.float64(0.13),
        "stats": stats,
    }
    torch.save(content, path)


def check_original(path: Path) -> None:
    table = make_table()
    content = read_checkpoint(path)
    assert content["best_val_loss"] == 0.13
    assert all(tensor.device.type == "cpu" for tensor in content["state_dict"].values())
    network = Original("dnnp", (4, 20), 2).eval()
    network.load_state_dict(content["state_dict"])
    x = table.features[:, :2]
    x = torch.from_numpy(((x - x.mean(0)) / x.std(0)).astype(np.float32))
    model = TrainedModel("dnnp", path, (4, 20), 2)
    _, density = model.forward({"hpix": table.hpix, "features": table.features[:, :2]}, axes=[0, 1])
    with torch.no_grad():
        np.testing.assert_allclose(density, network(x)[:, 0].numpy(), rtol=2e-6)


def test_b12_a_checkpoint_of_the_original_is_read(tmp_path):
    """Its stats contain numpy's arrays and numbers, which torch >= 2.6 rejects by default."""
    written_by_the_original(tmp_path / "best.pth.tar")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "best.pth.tar", weights_only=True)
    check_original(tmp_path / "best.pth.tar")


def test_b12_a_checkpoint_from_a_gpu_is_read_on_a_cpu(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        written_by_the_original(tmp_path / "best.pth.tar")
    with zipfile.ZipFile(tmp_path / "best.pth.tar") as archive:
        assert b"cuda:0" in archive.read("best.pth/data.pkl")
    check_original(tmp_path / "best.pth.tar")


def test_b12_a_checkpoint_of_numpy_1_is_read(tmp_path):
    """Numpy 2 moved its core; files of the original have the old module name."""
    written_by_the_original(tmp_path / "new")
    with (
        zipfile.ZipFile(tmp_path / "new") as new,
        zipfile.ZipFile(tmp_path / "best.pth.tar", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(name, content)
    check_original(tmp_path / "best.pth.tar")


class Shell:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "stats": Shell()}, "best.pth.tar")
    with pytest.raises(InputError, match=r"best\.pth\.tar: cannot be read as data \(names posix"):
        TrainedModel("dnnp", "best.pth.tar", (3, 5), 3)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04"])
def test_an_invalid_checkpoint_is_reported_in_one_line(tmp_path, content):
    (tmp_path / "best.pth.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"best\.pth\.tar") as caught:
        read_checkpoint(tmp_path / "best.pth.tar")
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_and_one_without_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "best.pth.tar")
    torch.save({"epoch": 1}, tmp_path / "best.pth.tar")
    with pytest.raises(InputError, match="is not a checkpoint of a network"):
        read_checkpoint(tmp_path / "best.pth.tar")


OTHERS = [
    ("dnnp", (4, 5), 3, "field bn.2.bias"),
    ("dnnp", (3, 6), 3, "field bn.0.bias"),
    ("dnnp", (3, 5), 4, "field fc.0.weight: has another structure: (5, 3) for (5, 4)"),
    ("linp", (3, 5), 3, "expected linp (3, 5) of 3 features"),
]


@pytest.mark.parametrize(("model", "structure", "n_features", "expected"), OTHERS)
def test_a_checkpoint_of_another_structure_is_an_error(
    done, model, structure, n_features, expected
):
    folder, _, _ = done
    for path in (f"export/{NAME}/best.pth.tar", f"train/members/fold1-{SEEDS[0]}.safetensors"):
        with pytest.raises(InputError) as caught:
            TrainedModel(model, folder / path, structure, n_features)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_table_of_the_original_can_be_used(done, tmp_path):
    """It has no SYSNet header, and its pixels are in any order."""
    folder, files, _ = done
    rows = fitsio.read(files.table)[::-1]
    fitsio.write(tmp_path / "table.fits", rows)
    model = TrainedModel("dnnp", folder / f"export/{NAME}/best.pth.tar", (3, 5), 3)
    hpix, density = model.forward(tmp_path / "table.fits", axes=range(3))
    np.testing.assert_array_equal(hpix[::-1], make_table().hpix)
    np.testing.assert_allclose(density[::-1], model.forward(files.table)[1], rtol=1e-6)
    (tmp_path / "other.fits").write_text("no table")
    with pytest.raises(InputError, match=r"other\.fits: cannot be read"):
        model.forward(tmp_path / "other.fits")


def test_wrong_calls_are_errors(done):
    folder, files, _ = done
    path = folder / f"export/{NAME}/best.pth.tar"
    with pytest.raises(UsageError, match="unknown model dnpp; did you mean dnnp"):
        TrainedModel("dnpp", path)
    model = TrainedModel("dnnp", path, (3, 5), 3)
    with pytest.raises(UsageError, match="2 features for a network of 3"):
        model.forward(files.table, axes=[0, 1])
    with pytest.raises(UsageError, match="the table has 3 features"):
        model.forward(files.table, axes=[0, 1, 5])
