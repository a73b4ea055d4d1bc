"""The Debian base of the images, made by mmdebstrap, as a docker archive for Apptainer."""

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


def base_archive(settings: dict[str, Any], cache: Path) -> Path:
    """Return the base as a docker archive in `cache`; make it if it is missing.

    Only this step needs the network; later builds take the archive from the cache. Raises
    EnvironmentProblem where mmdebstrap is missing or fails.
    """
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    archive = cache / f"base-{name}.tar"
    if not archive.exists():
        with atomic.replacing(archive) as temporary:
            system = temporary.with_suffix(".system")
            try:
                _bootstrap(settings, system)
                _wrap(system, temporary)
            finally:
                system.unlink(missing_ok=True)
    return archive


def _bootstrap(settings: dict[str, Any], system: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise EnvironmentProblem("mmdebstrap is not on PATH; install it: `apt install mmdebstrap`")
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(settings['packages'])}",
        # Unpacking device nodes needs root; Apptainer provides /dev.
        "--skip=output/dev",
        # The mirror's name is not part of the image.
        "--customize-hook=rm -f $1/etc/apt/sources.list $1/etc/resolv.conf $1/etc/hostname",
        "--format=tar",
        settings["suite"],
        str(system),
        *_mirror(),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(settings["epoch"])}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        said = " ".join(lines[:2]) or result.stderr[-200:].strip()
        remedy = "it needs a Debian mirror (SKYPROOF_MIRROR=URL names one) and 500 MB in TMPDIR"
        if "chroot mode" in said:  # it can neither be root nor use a user namespace
            remedy = RANGE
        raise EnvironmentProblem(f"the Debian base was not made: {said}; {remedy}")


def _mirror() -> list[str]:
    """Return the mirror of SKYPROOF_MIRROR, else of this machine's apt, else none (the default)."""
    if chosen := os.environ.get("SKYPROOF_MIRROR"):
        return [chosen]
    if shutil.which("apt-get") is None:
        return []
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    known = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    return re.findall(r"^\S+/debian/?$", known, flags=re.MULTILINE)[:1]


def _wrap(system: Path, archive: Path) -> None:
    """Write the tar of a file system as the only layer of a docker archive."""
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
