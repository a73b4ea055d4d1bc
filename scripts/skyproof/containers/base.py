"""The Debian system below the images, by mmdebstrap, wrapped as Apptainer's builder wants it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from skyproof.containers.client import RANGE
from skyproof.core import atomic
from skyproof.core.errors import EnvironmentProblem


def base_archive(recipe: dict[str, Any], cache: Path) -> Path:
    """Return the base as a docker archive in `cache`, made there if it is not (EnvironmentProblem).

    Its only visit to the network is this one: later builds take it from the cache.
    """
    name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    archive = cache / f"base-{name}.tar"
    if not archive.exists():
        with atomic.replacing(archive) as temporary:
            system = temporary.with_suffix(".system")
            try:
                _bootstrap(recipe, system)
                _wrap(system, temporary)
            finally:
                system.unlink(missing_ok=True)
    return archive


def _bootstrap(recipe: dict[str, Any], system: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise EnvironmentProblem("mmdebstrap is not on PATH; install it: `apt install mmdebstrap`")
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(recipe['packages'])}",
        # Device nodes cannot be unpacked without rights; Apptainer brings its own /dev.
        "--skip=output/dev",
        # The mirror's name is not part of the image.
        "--customize-hook=rm -f $1/etc/apt/sources.list $1/etc/resolv.conf $1/etc/hostname",
        "--format=tar",
        recipe["suite"],
        str(system),
        *_mirror(),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(recipe["epoch"])}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        said = " ".join(lines[:2]) or result.stderr[-200:].strip()
        remedy = "it needs a Debian mirror (SKYPROOF_MIRROR=URL names one) and 500 MB in TMPDIR"
        if "chroot mode" in said:  # it may neither be root nor look like root to itself
            remedy = RANGE
        raise EnvironmentProblem(f"the Debian base was not made: {said}; {remedy}")


def _mirror() -> list[str]:
    """Return the mirror of SKYPROOF_MIRROR, else of this machine's apt, else mmdebstrap's."""
    if chosen := os.environ.get("SKYPROOF_MIRROR"):
        return [chosen]
    if shutil.which("apt-get") is None:
        return []
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    known = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    return re.findall(r"^\S+/debian/?$", known, flags=re.MULTILINE)[:1]


def _wrap(system: Path, archive: Path) -> None:
    """Write a file system's tar as the one layer of a docker archive."""
    layer = {"type": "layers", "diff_ids": [f"sha256:{atomic.sha256_of(system)}"]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": layer})
    config_name = f"{hashlib.sha256(config.encode()).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": None, "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for name, text in ((config_name, config), ("manifest.json", json.dumps(manifest))):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        entry = tarfile.TarInfo("layer.tar")
        entry.size = system.stat().st_size
        with system.open("rb") as content:
            tar.addfile(entry, content)
