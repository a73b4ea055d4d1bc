"""Pack a verified run for publication: a BagIt bag (RFC 8493) of its products and manifest."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from skyproof.core.errors import InputError
from skyproof.proof import inventory, manifest
from skyproof.proof.report import IDENTICAL
from skyproof.proof.verify import verify


def make_bag(folder: Path, to: Path) -> int:
    """Copy the run's files to the new folder `to` and make it a bag; return the number of files.

    Logs, checkpoints and files that are not part of the run are left out. The bag has the date of
    the run, so that the same run gives the same bag on any day. Raises InputError where the run
    does not verify or `to` exists.
    """
    import bagit

    if to.exists():
        raise InputError(to, "exists already", expected="the name of a new folder")
    report = verify(folder)
    if report.code != IDENTICAL:
        raise InputError(folder, f"does not verify: {report.lines()[0]}")
    paths = [
        *report.manifest.files,
        *report.found.indices,
        *(p for p, _ in inventory.products(folder) if manifest.is_beside(p)),
    ]
    for path in paths:
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, to / path)
    about = {
        "Bagging-Date": manifest.date_of_run(folder),
        "Bag-Software-Agent": f"bagit.py {bagit.VERSION}",
        "External-Identifier": f"sha256:{report.manifest.root}",
        "External-Description": "results of skyproof; verify: python -m skyproof verify data",
    }
    logging.getLogger("bagit").setLevel(logging.WARNING)
    bagit.make_bag(str(to), about, checksums=["sha256"])
    return len(paths)
