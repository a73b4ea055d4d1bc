"""Check that images are the recorded ones, and that this machine can run them."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skyproof.containers import sif
from skyproof.containers.client import apptainer
from skyproof.containers.definition import IMAGES_FILE, ImageDefinition, read_recorded
from skyproof.core.cuda import expect_cuda
from skyproof.core.errors import EnvironmentProblem

LEAST_VERSION = (1, 3)
# The recorded version of this package is the CUDA version of the image.
_CUDA_PACKAGE = re.compile(r"nvidia-cuda-runtime(-cu\d+)?")
_AGAIN = "delete it and run `make images`, or copy it again from where it came"


def check_all(definitions: Sequence[ImageDefinition], public_key: Path | None = None) -> None:
    """Check images against images.yaml, then that one of them starts (EnvironmentProblem)."""
    for definition in definitions:
        check(definition, public_key)
    if definitions:
        check_machine(definitions[0].image)


def check(definition: ImageDefinition, public_key: Path | None = None) -> None:
    """Check that an image exists, is for this processor, and has the recorded file system.

    With a public key (PEM) its signature must be by that key; without, signatures are ignored.
    Raises EnvironmentProblem.
    """
    image = definition.image
    if not image.is_file():
        raise EnvironmentProblem(
            f"{image}: is missing; run `{definition.make}`, or unpack a copy there"
        )
    recorded = read_recorded(definition.checkout).get(definition.name, {})
    if recorded.get("definition") != definition.digest():
        raise EnvironmentProblem(
            f"{image}: its definition or locks are not those of containers/{IMAGES_FILE}; "
            f"run `{definition.make} RECORD=1` and commit that file"
        )
    if (machine := sif.architecture(image)) != platform.machine():
        raise EnvironmentProblem(
            f"{image}: is for {machine} and this machine is {platform.machine()}; "
            f"build it here with `{definition.make}`"
        )
    if (found := sif.file_system_digest(image)) != recorded["file_system"]:
        raise EnvironmentProblem(
            f"{image}: is damaged or another image: its file system has SHA-256 {found[:12]}..., "
            f"recorded is {recorded['file_system'][:12]}...; {_AGAIN}"
        )
    if public_key is not None:
        check_signature(image, public_key)


def check_signature(image: Path, public_key: Path) -> None:
    """Check that an image is signed with the key of `public_key` (EnvironmentProblem)."""
    if not sif.is_signed(image):
        raise EnvironmentProblem(f"{image}: is not signed; sign it, or leave --public-key out")
    try:
        apptainer("verify", "--key", public_key, image, image=image)
    except EnvironmentProblem as error:
        raise EnvironmentProblem(
            f"{image}: its signature is not by {public_key}, or it was altered; {_AGAIN} ({error})"
        ) from None


def check_machine(image: Path) -> None:
    """Check that Apptainer is new enough and starts an image (EnvironmentProblem)."""
    said = apptainer("--version")
    version = re.search(r"(\d+)\.(\d+)", said)
    if version and (int(version[1]), int(version[2])) < LEAST_VERSION:
        raise EnvironmentProblem(f"{said.strip()} is too old; install 1.3 or later")
    apptainer("exec", image, "true", image=image)


def check_driver(definition: ImageDefinition) -> None:
    """Check that the NVIDIA driver supports the CUDA version of an image (EnvironmentProblem)."""
    held = read_recorded(definition.checkout).get(definition.name, {}).get("packages", {})
    versions = [v for name, v in held.get("python", {}).items() if _CUDA_PACKAGE.fullmatch(name)]
    if not versions:
        raise EnvironmentProblem(
            f"{definition.image}: holds no CUDA and jobs have device=cuda; run "
            f"`{definition.make} RECORD=1`, or take device=cpu"
        )
    major, minor = versions[0].split(".")[:2]
    expect_cuda((int(major), int(minor)), str(definition.image))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line for each package whose version differs from the recorded one."""
    lines = []
    for kind in ("debian", "python"):
        before = old.get("packages", {}).get(kind, {})
        now = new["packages"][kind]
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                lines.append(
                    f"{name} {before.get(name, 'absent')} became {now.get(name, 'absent')}"
                )
    return lines
