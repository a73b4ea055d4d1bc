"""The tool `images` of the command line: build, verify, sign, pack."""

from __future__ import annotations

import argparse
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from skyproof.containers import build as building
from skyproof.containers import check
from skyproof.containers.client import apptainer
from skyproof.containers.definition import (
    CHECKOUT,
    IMAGES_FILE,
    ImageDefinition,
    definitions,
    read_recorded,
    write_recorded,
)
from skyproof.core import atomic
from skyproof.core.errors import EnvironmentProblem


def images(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Make, check, sign or pack the images of the rules."""
    parser.add_argument("action", choices=("build", "verify", "sign", "pack"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="which images [all]")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CHECKOUT / ".cache/images",
        help="folder of wheels, the Debian base and builds [.cache/images]",
    )
    parser.add_argument("--record", action="store_true", help="build: record the new images")
    parser.add_argument("--key", type=Path, metavar="PEM", help="sign: your private key")
    parser.add_argument("--public-key", type=Path, metavar="PEM", help="verify: key of the signer")
    parser.add_argument("--to", type=Path, default=Path("images.tar"), help="pack: the archive")
    given = parser.parse_args(words)
    chosen = definitions(CHECKOUT, given.names)
    if given.action == "build":
        make(chosen, given.cache.absolute(), given.record)
    elif given.action == "verify":
        check.check_all(chosen, given.public_key)
        print(
            f"{len(chosen)} images are those of containers/{IMAGES_FILE} and start on this machine"
        )
    elif given.action == "sign":
        sign(chosen, given.key)
    else:
        pack(chosen, given.to)
    return 0


def make(chosen: Sequence[ImageDefinition], cache: Path, record: bool) -> None:
    """Build the missing images and compare each with its recorded entry, or record it.

    Raises EnvironmentProblem where a build fails or gives another image than recorded. That image
    is kept; `record` accepts it.
    """
    started = time.monotonic()
    building.build_missing(chosen, cache)
    entries = read_recorded(CHECKOUT)
    changed = []
    for definition in chosen:
        image = definition.image
        entry = building.entry_of(definition, image)
        print(f"{image.name}: {image.stat().st_size / 1e6:.0f} MB", flush=True)
        if entry != (before := entries.get(definition.name, {})):
            changed.append(definition.name)
            for line in check.differences(before, entry)[:20] if before else []:
                print(f"  {line}")
        entries[definition.name] = entry
    print(f"{len(chosen)} images in {time.monotonic() - started:.0f} s")
    if changed and not record:
        raise EnvironmentProblem(
            f"{', '.join(changed)}: not as recorded in containers/{IMAGES_FILE}; if that is on "
            "purpose (a new definition, newer Debian packages), run `make images RECORD=1`"
        )
    if changed:
        write_recorded(CHECKOUT, entries)
        print(f"wrote containers/{IMAGES_FILE}")


def sign(chosen: Sequence[ImageDefinition], key: Path | None) -> None:
    """Sign images with a private key (PEM, not encrypted). Their file systems do not change."""
    if key is None:
        raise EnvironmentProblem(
            "signing needs --key PEM; make one by `openssl genpkey -algorithm ed25519 -out key.pem`"
        )
    for definition in chosen:
        check.check(definition)
        apptainer("sign", "--key", key, definition.image, image=definition.image)
        print(f"signed {definition.image}")


def pack(chosen: Sequence[ImageDefinition], archive: Path) -> None:
    """Write checked images into one archive for another site, and a file with its checksum."""
    for definition in chosen:
        check.check(definition)
    with atomic.replacing(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for definition in chosen:
            tar.add(definition.image, definition.image.name, filter=_plain)
    sums = archive.with_name(f"{archive.name}.sha256")
    with atomic.replacing(sums) as temporary:
        temporary.write_text(f"{atomic.sha256_of(archive)}  {archive.name}\n", "ascii")
    print(f"wrote {archive} and {sums.name}; at the other site: sha256sum -c {sums.name}")
    print(f"then `tar xf {archive.name} -C .../containers` (or set SKYPROOF_IMAGES to its folder)")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove owner and time, so that the archive is reproducible."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.mode = 0o644
    return entry
