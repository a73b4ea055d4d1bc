"""Making an image: wheels once over the network, then a build without it, always the same."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from skyproof.containers import sif
from skyproof.containers.base import base_archive
from skyproof.containers.client import apptainer, last_words
from skyproof.containers.definition import Definition, base_recipe, sha256_of
from skyproof.core import atomic
from skyproof.core.errors import EnvironmentProblem

# Of the largest image: its unpacked tree, its wheels' copies and the packed file.
NEEDED_BYTES = 3 << 30
NEEDED_BYTES_CUDA = 15 << 30  # an estimate, as it was never built

_VERSIONS = """
import json, subprocess
from importlib import metadata
listed = subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout
print(json.dumps({
    "debian": dict(line.split("\\t") for line in listed.splitlines()),
    "python": {each.metadata["Name"]: each.version for each in metadata.distributions()},
}))
"""


def fetch_wheels(definition: Definition, cache: Path) -> Path:
    """Return the folder with the wheels of a definition's locks, each with its hash."""
    # Both builds of torch in one folder would be one version to an installer.
    folder = cache / ("wheels-cuda" if definition.on_gpus else "wheels")
    folder.mkdir(parents=True, exist_ok=True)
    for lock in ("installer.lock.txt", *definition.locks):
        _fetch(definition.checkout / "envs" / lock, folder)
    if not any(folder.glob("setuptools-*.whl")):
        # A package without a wheel is built in the image, by the version that training has.
        _fetch(definition.checkout / "envs/train.lock.txt", folder)
    return folder


def _fetch(lock: Path, folder: Path) -> None:
    """Download what a lock names, once; pip's own settings say from where."""
    stamp = folder / f".{lock.name}"
    if stamp.exists() and stamp.read_text() == sha256_of(lock):
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--dest", str(folder), "--find-links", str(folder), "-r", str(lock)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise EnvironmentProblem(
            f"the wheels of {lock} were not fetched: {last_words(said)}; put them into {folder}, "
            "or name an index that has them (PIP_EXTRA_INDEX_URL; PyTorch's own for its CPU build)"
        )
    stamp.write_text(sha256_of(lock))


def build_missing(chosen: Sequence[Definition], cache: Path) -> None:
    """Build the images that are not there, as many side by side as cores and disk allow.

    Raises EnvironmentProblem. Of two builds in one cache the second waits and finds them done.
    """
    if all(each.image.exists() for each in chosen):
        return
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob("build-*"):  # of a build that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        missing = [each for each in chosen if not each.image.exists()]
        if not missing:
            return
        on_gpus = any(each.on_gpus for each in missing)
        places = room(cache, NEEDED_BYTES_CUDA if on_gpus else NEEDED_BYTES)
        base = base_archive(base_recipe(missing[0].checkout), cache)
        wheels = [fetch_wheels(each, cache) for each in missing]
        with ProcessPoolExecutor(min(len(missing), _cores(), places)) as pool:
            list(pool.map(partial(build, base=base, cache=cache), missing, wheels))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def build(definition: Definition, wheels: Path, base: Path, cache: Path) -> None:
    """Build an image, test it, and move it into place (EnvironmentProblem, and nothing is left)."""
    recipe = base_recipe(definition.checkout)
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name, \
         atomic.replacing(definition.image) as temporary:  # fmt: skip
        folder = Path(name)
        materials = folder / "materials"
        (materials / "wheels").mkdir(parents=True)
        for part in definition.parts:
            shutil.copy(definition.checkout / part, materials)
        for wheel in wheels.glob("[!.]*"):
            os.link(wheel, materials / "wheels" / wheel.name)
        os.link(base, folder / "base.tar")
        (folder / "tmp").mkdir()
        _run_build(recipe, folder, definition, folder / "made.sif")
        sif.normalise(folder / "made.sif")
        shutil.move(folder / "made.sif", temporary)


def _run_build(recipe: dict[str, Any], folder: Path, definition: Definition, made: Path) -> None:
    # --force lets the definition's label of the date stand in place of today's.
    # The definition names base.tar without a path, so that no path of this machine is in the image.
    here = Path.cwd()
    os.chdir(folder)
    try:
        apptainer(
            "build", "--force", "--fakeroot", "--bind", f"{folder / 'materials'}:/mnt:ro",
            "--mksquashfs-args", recipe["squashfs"], made, definition.path,
            image=definition.image,
            env={"SOURCE_DATE_EPOCH": str(recipe["epoch"]), "APPTAINER_TMPDIR": str(folder / "tmp"),
                 "APPTAINER_CACHEDIR": str(folder / "tmp")},
        )  # fmt: skip
    finally:
        os.chdir(here)


def room(folder: Path, needed: int) -> int:
    """Return for how many builds of `needed` bytes there is room (EnvironmentProblem: for none)."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentProblem(
            f"{folder}: {free / 1e9:.1f} GB are free and an image's build takes "
            f"{needed / 1e9:.1f}; free some, or name a larger disk with --cache"
        )
    return free // needed


def entry_of(definition: Definition, image: Path) -> dict[str, Any]:
    """Return what the record says of an image: what it is made from, what it is, what it holds."""
    import json

    words = ("exec", "--cleanenv", "--no-home", image, "python", "-c", _VERSIONS)
    said = apptainer(*words, image=image)
    packages = json.loads(re.search(r"^\{.*\}$", said, re.MULTILINE)[0])  # type: ignore[index]
    return {
        "definition": definition.digest(),
        "locks": {
            lock: sha256_of(definition.checkout / "envs" / lock) for lock in definition.locks
        },
        "file_system": sif.file_system_digest(image),
        "packages": packages,
    }
