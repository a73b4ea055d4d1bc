"""Whether images are those of the record, and whether this machine can run them."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skyproof.containers import sif
from skyproof.containers.client import apptainer
from skyproof.containers.definition import RECORD, Definition, read_record
from skyproof.core.cuda import expect_cuda
from skyproof.core.errors import EnvironmentProblem

LEAST_VERSION = (1, 3)
# In the record, the version of this package is that of the image's CUDA.
_CUDA_PACKAGE = re.compile(r"nvidia-cuda-runtime(-cu\d+)?")
_AGAIN = "delete it and run `make images`, or copy it again from where it came"


def check_all(definitions: Sequence[Definition], public_key: Path | None = None) -> None:
    """Check images against the record, then that one of them starts (EnvironmentProblem)."""
    for definition in definitions:
        check(definition, public_key)
    if definitions:
        check_machine(definitions[0].image)


def check(definition: Definition, public_key: Path | None = None) -> None:
    """Check that an image is there, for this processor, and to the bit the one of the record.

    With a public key (PEM) its signature has to be by it; without, a signature is not looked at.
    """
    image = definition.image
    if not image.is_file():
        raise EnvironmentProblem(
            f"{image}: is missing; run `{definition.make}`, or unpack a copy there"
        )
    recorded = read_record(definition.checkout).get(definition.name, {})
    if recorded.get("definition") != definition.digest():
        raise EnvironmentProblem(
            f"{image}: its definition or locks are not those of containers/{RECORD}; "
            f"run `{definition.make} RECORD=1` and commit the record"
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
    """Check that an image is signed by whom holds the private key (EnvironmentProblem)."""
    if not sif.is_signed(image):
        raise EnvironmentProblem(f"{image}: is not signed; sign it, or leave --public-key out")
    try:
        apptainer("verify", "--key", public_key, image, image=image)
    except EnvironmentProblem as error:
        raise EnvironmentProblem(
            f"{image}: its signature is not by {public_key}, or it was altered; {_AGAIN} ({error})"
        ) from None


def check_machine(image: Path) -> None:
    """Check that this machine's Apptainer is new enough and starts an image."""
    said = apptainer("--version")
    version = re.search(r"(\d+)\.(\d+)", said)
    if version and (int(version[1]), int(version[2])) < LEAST_VERSION:
        raise EnvironmentProblem(f"{said.strip()} is too old; install 1.3 or later")
    apptainer("exec", image, "true", image=image)


def check_driver(definition: Definition) -> None:
    """Check that this machine's NVIDIA driver runs the CUDA of an image (EnvironmentProblem)."""
    held = read_record(definition.checkout).get(definition.name, {}).get("packages", {})
    versions = [v for name, v in held.get("python", {}).items() if _CUDA_PACKAGE.fullmatch(name)]
    if not versions:
        raise EnvironmentProblem(
            f"{definition.image}: holds no CUDA and jobs have device=cuda; run "
            f"`{definition.make} RECORD=1`, or take device=cpu"
        )
    major, minor = versions[0].split(".")[:2]
    expect_cuda((int(major), int(minor)), str(definition.image))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what an image holds in other versions than the recorded one, a line a package."""
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
