"""Images built for real, once a session, from a copy of the checkout with a record of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, skyproof
from tests.workflow.conftest import tiny  # noqa: F401  (the local run, to compare with)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A checkout whose images were built just now, or a skip that says why not.

    Wheels and the Debian base come from .cache/images, where an earlier build left them.
    """
    for program in ("apptainer", "mmdebstrap", "mksquashfs"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    checkout = tmp_path_factory.mktemp("images") / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.sif")
    for name in ("scripts", "rules", "envs", "profiles", "containers"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, checkout / name)
    cache = ROOT / ".cache/images"
    result = skyproof("images", "build", "--record", "--cache", cache, timeout=900, **of(checkout))
    assert result.returncode == 0, result.stdout + result.stderr
    return checkout


def of(checkout: Path) -> dict[str, str]:
    """Return the environment in which commands are those of a checkout."""
    return {"PYTHONPATH": str(checkout / "scripts"), "SKYPROOF_IMAGES": ""}


def as_root_of_a_machine_like(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own; skip for who may not."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, to make a machine with the fault")
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
