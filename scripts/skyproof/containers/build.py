"""Build an image: fetch wheels once, then build without network, reproducibly."""

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
from skyproof.containers.definition import ImageDefinition, base_settings, sha256_of
from skyproof.core import atomic
from skyproof.core.errors import EnvironmentProblem

# Disk space for the largest image: unpacked files, copies of the wheels and the packed file.
NEEDED_BYTES = 3 << 30
NEEDED_BYTES_CUDA = 15 << 30  # an estimate: this image was never built

_VERSIONS = """
import json, subprocess
from importlib import metadata
listed = subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout
print(json.dumps({
    "debian": dict(line.split("\\t") for line in listed.splitlines()),
    "python": {each.metadata["Name"]: each.version for each in metadata.distributions()},
}))
"""


def fetch_wheels(definition: ImageDefinition, cache: Path) -> Path:
    """Return the folder with the wheels of a definition's locks; fetch those that are missing."""
    # Separate folders, as an installer cannot distinguish the two builds of torch.
    folder = cache / ("wheels-cuda" if definition.on_gpus else "wheels")
    folder.mkdir(parents=True, exist_ok=True)
    for lock in ("installer.lock.txt", *definition.locks):
        _fetch(definition.checkout / "envs" / lock, folder)
    if not any(folder.glob("setuptools-*.whl")):
        # A package without a wheel is built in the image, with the setuptools of the training lock.
        _fetch(definition.checkout / "envs/train.lock.txt", folder)
    return folder


def _fetch(lock: Path, folder: Path) -> None:
    """Download the packages of a lock once, from the indexes in pip's own settings."""
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
            "or name an index that has them (PIP_EXTRA_INDEX_URL; PyTorch's for the CPU build)"
        )
    stamp.write_text(sha256_of(lock))


def build_missing(chosen: Sequence[ImageDefinition], cache: Path) -> None:
    """Build the missing images, in parallel as far as cores and disk space allow.

    Raises EnvironmentProblem. A second process with the same cache waits and finds them built.
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
        n_parallel = builds_that_fit(cache, NEEDED_BYTES_CUDA if on_gpus else NEEDED_BYTES)
        base = base_archive(base_settings(missing[0].checkout), cache)
        wheels = [fetch_wheels(each, cache) for each in missing]
        with ProcessPoolExecutor(min(len(missing), _cores(), n_parallel)) as pool:
            list(pool.map(partial(build, base=base, cache=cache), missing, wheels))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def build(definition: ImageDefinition, wheels: Path, base: Path, cache: Path) -> None:
    """Build an image, test it, and move it into place.

    Raises EnvironmentProblem, and then leaves no file.
    """
    settings = base_settings(definition.checkout)
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
        _run_build(settings, folder, definition, folder / "made.sif")
        sif.normalise(folder / "made.sif")
        shutil.move(folder / "made.sif", temporary)


def _run_build(
    settings: dict[str, Any], folder: Path, definition: ImageDefinition, made: Path
) -> None:
    # --force keeps the label of the date in the definition instead of today's. The definition names
    # base.tar without a path, so that the image contains no path of this machine.
    here = Path.cwd()
    os.chdir(folder)
    try:
        apptainer(
            "build", "--force", "--fakeroot", "--bind", f"{folder / 'materials'}:/mnt:ro",
            "--mksquashfs-args", settings["squashfs"], made, definition.path,
            image=definition.image,
            env={"SOURCE_DATE_EPOCH": str(settings["epoch"]),
                 "APPTAINER_TMPDIR": str(folder / "tmp"),
                 "APPTAINER_CACHEDIR": str(folder / "tmp")},
        )  # fmt: skip
    finally:
        os.chdir(here)


def builds_that_fit(folder: Path, needed: int) -> int:
    """Return the number of builds of `needed` bytes for which there is disk space.

    Raises EnvironmentProblem if it is 0.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentProblem(
            f"{folder}: {free / 1e9:.1f} GB are free and an image's build takes "
            f"{needed / 1e9:.1f}; free some, or name a larger disk with --cache"
        )
    return free // needed


def entry_of(definition: ImageDefinition, image: Path) -> dict[str, Any]:
    """Return the entry of an image for images.yaml: its sources, file system and packages."""
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
