"""Images built for real, once for all tests, and runs in them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skyproof.containers.definition import definition, definitions
from tests.conftest import ROOT, launch, made_once, skyproof
from tests.workflow.conftest import TINY_ALL, copy_checkout, snakemake, tiny, tiny_all, tiny_sysnet  # noqa: F401


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A copy of the checkout with a separate record of the images, or a skip with the reason.

    The images lie where `make images` puts them, and are built where they are missing. Their
    record in the copy is of what they are now, also where Debian has newer packages by then.
    """
    if reason := why_not():
        pytest.skip(reason)
    return made_once(tmp_path_factory, "images", build)


def why_not() -> str | None:
    """Return why images cannot be built and run here, if so."""
    for program in ("apptainer", "mmdebstrap", "mksquashfs"):
        if shutil.which(program) is None:
            return f"no container images: {program} is not installed"
    if launch(["unshare", "--map-root-user", "true"]).returncode != 0:
        return "no container images: this machine gives no user namespaces"
    return None


def build(checkout: Path) -> None:
    copy_checkout(checkout)
    words = ("images", "build", "--record", "--cache", ROOT / ".cache/images")
    result = skyproof(*words, timeout=1500, **of(checkout))
    assert result.returncode == 0, result.stdout + result.stderr


def image_of(environment: str) -> Path:
    """Return the image of an environment, where `make images` puts it."""
    return definition(environment).image


def of(checkout: Path) -> dict[str, str]:
    """Return the environment in which commands are those of a checkout with these images."""
    folder = definitions()[0].image.parent
    return {"PYTHONPATH": str(checkout / "scripts"), "SKYPROOF_IMAGES": str(folder)}


def run(folder: Path, checkout: Path, *words: str, config: dict = TINY_ALL):
    """Run `snakemake --sdm apptainer WORDS` of a checkout."""
    words = (*words, "--sdm", "apptainer")
    return snakemake(folder, *words, checkout=checkout, config=config, timeout=1500, **of(checkout))


@pytest.fixture(scope="session")
def finished(images, tmp_path_factory) -> Path:
    """The tiny runs of all systems as one, in images, two ranks a stage; not to be changed."""

    def make(folder: Path) -> None:
        result = run(folder, images, "-c", "2")
        assert result.returncode == 0, result.stdout + result.stderr

    return made_once(tmp_path_factory, "inside", make)


def as_root_of_a_machine_like(
    script: str, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a new mount namespace; skip without the permission."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, to make a machine with the fault")
    command = ["unshare", "--mount", "bash", "-euc", script]
    return launch(command, timeout=timeout, **environment)


def as_nobody(script: str, home: Path, *paths: Path) -> str:
    """Return a shell script that runs another one as a normal user who gets to these paths.

    For a separate mount namespace. Folders above the paths that only root may enter are hidden
    by empty ones with nothing but the paths in them.
    """
    ways = sorted(
        {path.resolve() for path in (home, Path(sys.prefix), Path(sys.base_prefix), *paths)}
    )
    closed = {way: top for way in ways if (top := _closed_above(way))}
    lines = [f"chown -R 65534:65534 {quoted(home)}", "mount -t tmpfs none /mnt"]
    for number, way in enumerate(closed):
        lines += [f"mkdir /mnt/{number}", f"mount --bind {quoted(way)} /mnt/{number}"]
    lines += [
        f"mount -t tmpfs -o mode=755 none {quoted(top)}" for top in sorted(set(closed.values()))
    ]
    for number, way in enumerate(closed):
        lines += [f"mkdir -p {quoted(way)}", f"mount --bind /mnt/{number} {quoted(way)}"]
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    lines.append(f"HOME={quoted(home)} {user} bash -c {quoted(script)}")
    return "\n".join(lines)


def _closed_above(path: Path) -> Path | None:
    """Return the highest folder above a path that others may not enter."""
    return next((top for top in reversed(path.parents) if not top.stat().st_mode & 1), None)


def quoted(word: str | Path) -> str:
    return shlex.quote(str(word))
