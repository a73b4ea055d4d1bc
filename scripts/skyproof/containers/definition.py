"""The definition of an image, its digest, and the recorded digests: containers/images.yaml.

The digest is part of the image's file name. After a change of a definition or
lock, another file is needed, and rules that use it run again. The digest does not depend on the
source of this package.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skyproof.core import atomic
from skyproof.core.errors import EnvironmentProblem, UsageError, did_you_mean

CHECKOUT = Path(__file__).parents[3]
IMAGES_FILE = "images.yaml"
_COMMON = ("containers/base.yaml", "containers/install", "envs/installer.lock.txt")
_ON_GPUS = "-cuda"
_HEADING = """\
# What the images of this folder's definitions are, as `make images` built and checked them. Written
# by `make images RECORD=1`; `make images-verify` compares. file_system: SHA-256 of the packed file
# system, the same for everyone who builds from the same definition and the same Debian packages.
"""


@dataclass(frozen=True)
class ImageDefinition:
    """One environment's image definition in a checkout."""

    name: str
    checkout: Path = CHECKOUT

    @property
    def path(self) -> Path:
        return self.checkout / "containers" / f"{self.name}.def"

    @property
    def on_gpus(self) -> bool:
        """Whether it replaces the image without `-cuda` in jobs with a GPU."""
        return self.name.endswith(_ON_GPUS)

    @property
    def make(self) -> str:
        """The command that builds it."""
        return "TORCH=cuda make images" if self.on_gpus else "make images"

    @property
    def locks(self) -> list[str]:
        """The names of the locks that its %post installs."""
        found = re.search(r"^ +/mnt/install (.+)$", self.path.read_text("utf-8"), re.MULTILINE)
        if found is None:
            raise UsageError(f"{self.path}: %post does not call /mnt/install with its locks")
        return found[1].split()

    @property
    def parts(self) -> list[str]:
        """The files that determine the image, relative to the checkout."""
        locks = [f"envs/{name}" for name in self.locks]
        return [f"containers/{self.name}.def", *_COMMON, *locks]

    def digest(self) -> str:
        """Return the SHA-256 over the names and contents of its parts."""
        lines = [f"{sha256_of(self.checkout / part)}  {part}\n" for part in self.parts]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def image(self) -> Path:
        """The path of the image, in the folder SKYPROOF_IMAGES, else in containers/."""
        folder = os.environ.get("SKYPROOF_IMAGES") or self.checkout / "containers"
        return Path(folder).absolute() / f"{self.name}-{self.digest()[:12]}.sif"


def definitions(checkout: Path = CHECKOUT, names: list[str] | None = None) -> list[ImageDefinition]:
    """Return a checkout's definitions of these names (default: all for CPUs) (UsageError)."""
    known = sorted(path.stem for path in (checkout / "containers").glob("*.def"))
    for name in names or []:
        if name not in known:
            raise UsageError(f"no image is called {name}{did_you_mean(name, known)}")
    chosen = [ImageDefinition(name, checkout) for name in names or known]
    return [each for each in chosen if names or not each.on_gpus]


def definition(name: str, checkout: Path = CHECKOUT, device: str = "cpu") -> ImageDefinition:
    """Return the definition of one environment, for jobs on a device (UsageError)."""
    return definitions(checkout, [name + _ON_GPUS if device == "cuda" else name])[0]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a part of a definition (EnvironmentProblem where it is missing)."""
    try:
        return atomic.sha256_of(path)
    except FileNotFoundError:
        raise EnvironmentProblem(f"{path}: is missing; restore it from the repository") from None


def base_settings(checkout: Path) -> dict[str, Any]:
    """Return containers/base.yaml: suite, packages, epoch [s], options of mksquashfs."""
    return yaml.safe_load((checkout / _COMMON[0]).read_text("utf-8"))


def read_recorded(checkout: Path) -> dict[str, dict[str, Any]]:
    """Return the recorded entry of each image; empty without the file (EnvironmentProblem)."""
    path = checkout / "containers" / IMAGES_FILE
    try:
        return (yaml.safe_load(path.read_text("utf-8")) or {}).get("images", {})
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise EnvironmentProblem(
            f"{path}: cannot be read ({problem}); restore it from the repository"
        ) from None


def write_recorded(checkout: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Write the entries of all images, sorted by name."""
    with atomic.replacing(checkout / "containers" / IMAGES_FILE) as temporary:
        temporary.write_text(_HEADING + yaml.safe_dump({"images": entries}, width=100), "utf-8")
