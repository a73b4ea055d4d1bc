"""Portable numerics: the same bytes on processors of other families, emulated.

`qemu-x86_64-static` runs each stage as on a Haswell or a Zen 2, which lack AVX-512.
Short runs of small data: an emulated processor is some fifty times slower, and no real one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skyproof.core import numerics
from tests.conftest import clean_environment
from tests.unit.obiwan.build.train import write_split

pytestmark = pytest.mark.slow

_STAGES = """
import json, sys
from skyproof.__main__ import main
sys.exit(max(main(words) for words in json.loads(sys.argv[1])))
"""
QEMU = "qemu-x86_64-static"
PROCESSORS = ("Haswell", "EPYC-Rome")
PRODUCTS = ("bricks.json", "model.safetensors", "history.csv", "scores.parquet")


@pytest.fixture(scope="module")
def qemu() -> str:
    found = shutil.which(QEMU)
    if found is None:
        pytest.skip(f"{QEMU} is absent (Debian: apt-get install qemu-user-static)")
    return found


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split to train on, made on this processor."""
    return write_split(tmp_path_factory.mktemp("split"), n_bricks=2, n=2)


@pytest.fixture(scope="module")
def here(index: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The products of this processor."""
    return made(index, tmp_path_factory.mktemp("here"), [])


def made(index: Path, folder: Path, emulator: list[str]) -> dict[str, bytes]:
    """Simulate a brick; train and infer on the split; return the products.

    One process runs the three stages, as imports take most of the time of an emulated one.
    """
    stages = (
        ["obiwan.simulate", "--out", "bricks=bricks.json", "--n-bricks", "1", "--brick-pixels",
         "160", "--n-real", "6", "--n-fake", "6", "--n-stars", "2"],
        ["obiwan.train", "--in", f"split={index}", "--out", "model=model.safetensors",
         "history=history.csv", "--bands", "g", "--batch", "2", "--n-epochs", "1",
         "--profile-steps", "0"],
        ["obiwan.infer", "--in", "model=model.safetensors", f"split={index}",
         "--out", "scores=scores.parquet", "--batch", "8"],
    )  # fmt: skip
    # The command would start itself again, natively, to set these variables.
    environment = clean_environment(**numerics.environment("portable", 1))
    command = [*emulator, sys.executable, "-c", _STAGES, json.dumps(stages)]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_emulated_processor_makes_the_same_bytes(
    qemu: str, index: Path, here: dict[str, bytes], tmp_path: Path, processor: str
):
    """The block index has the checksums of the images, which are compared by them."""
    there = made(index, tmp_path, [qemu, "-cpu", processor])
    assert [name for name in PRODUCTS if here[name] != there[name]] == []


def test_native_numerics_differ_on_an_emulated_processor(qemu: str, index: Path, tmp_path: Path):
    """Otherwise the test above would not test the profile."""
    program = (
        "import numpy as np; x = np.random.default_rng(1).random(10000);"
        "print(np.exp(x).sum().hex(), np.exp(x).tobytes().hex()[:4000])"
    )
    command = [sys.executable, "-c", program]
    found = [
        subprocess.run(
            [*emulator, *command], env=clean_environment(**environment), capture_output=True,
            text=True, timeout=300, check=True,
        ).stdout
        for emulator in ([], [qemu, "-cpu", "Haswell"])
        for environment in ({}, numerics.environment("portable", 1))
    ]  # fmt: skip
    native_here, portable_here, native_there, portable_there = found
    assert portable_here == portable_there == native_there
    if native_here == portable_here:
        pytest.skip("this processor has no AVX-512: no difference to test")
