"""The command-line tools verify, root, manifest, bag and crate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from skyproof.core.errors import SkyproofError, is_machine_problem
from skyproof.proof import collect, inventory, manifest
from skyproof.proof import verify as verification
from skyproof.proof.publish import sign
from skyproof.proof.report import CANNOT


def verify(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Verify a folder and print the report. The exit code is 3 also for a wrong command line."""
    parser.add_argument("folder", type=Path, help="the folder of results")
    parser.add_argument(
        "--against", type=Path, metavar="REFERENCE", help="another folder, or its manifest.json"
    )
    parser.add_argument(
        "--strict", action="store_true", help="equal within tolerance is a mismatch"
    )
    parser.add_argument("--root", metavar="SHA256", help="the published root")
    parser.add_argument("--public-key", type=Path, metavar="PEM", help="public key of the signer")
    parser.epilog = (
        "exit codes: 0 identical, 1 mismatch, 2 equal within tolerance only, 3 cannot be verified, "
        "4 the machine failed (disk, permissions, memory)"
    )
    try:
        given = parser.parse_args(words)
        report = verification.verify(
            given.folder,
            given.against,
            strict=given.strict,
            root=given.root,
            public_key=given.public_key,
        )
    except SystemExit as stop:
        return CANNOT if stop.code else 0
    except (SkyproofError, OSError) as error:
        if is_machine_problem(error):
            raise
        # Their own exit codes mean "within tolerance" or "mismatch" here.
        print(f"cannot be verified: {error}", file=sys.stderr)
        return CANNOT
    print("\n".join(report.lines()))
    return report.code


def root(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Print the root digest, and sign it if a key is given."""
    parser.add_argument("folder", type=Path, help="the folder of results")
    parser.add_argument("--sign", type=Path, metavar="PEM", help="your Ed25519 private key")
    given = parser.parse_args(words)
    digest = manifest.read(given.folder).root
    if given.sign is not None:
        print(f"wrote {sign.sign(given.folder, digest, given.sign)}", file=sys.stderr)
    print(digest)
    return 0


def collect_manifest(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Write the manifest of a run."""
    parser.add_argument("folder", type=Path, help="the folder of results")
    parser.add_argument(
        "--products",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="final products of the run [all that have a receipt]",
    )
    parser.add_argument(
        "--threads", type=int, default=inventory.cores(), help="files hashed at once"
    )
    given = parser.parse_args(words)
    content, provenance = collect.collect(given.folder, given.products, given.threads)
    written = manifest.write(given.folder, content, provenance)
    print(f"{len(written.files)} files of {len(provenance['jobs'])} jobs, root {written.root}")
    return 0


def bag(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Pack a run as a BagIt bag."""
    from skyproof.proof.publish.bag import make_bag

    parser.add_argument("folder", type=Path, help="the folder of results")
    parser.add_argument("--to", type=Path, help="the new folder [beside it, FOLDER-bag]")
    given = parser.parse_args(words)
    folder = given.folder.resolve()
    to = given.to or folder.with_name(f"{folder.name}-bag")
    print(f"{to}: a bag of {make_bag(folder, to)} files")
    return 0


def crate(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Describe a run as an RO-Crate."""
    from skyproof.proof.publish.crate import make_crate

    parser.add_argument("folder", type=Path, help="the folder of results, which becomes the crate")
    parser.add_argument(
        "--license",
        metavar="URL",
        default="https://spdx.org/licenses/BSD-3-Clause",
        help="licence of the results [that of the software]",
    )
    parser.add_argument("--author", help="author of the run: 'Name <https://orcid.org/...>'")
    given = parser.parse_args(words)
    print(f"wrote {make_crate(given.folder, given.license, given.author)}")
    return 0


COMMANDS = {
    "verify": verify,
    "root": root,
    "manifest": collect_manifest,
    "bag": bag,
    "crate": crate,
}
