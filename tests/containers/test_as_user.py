"""A normal user's run in images: without root, and without a range of sub-identifiers."""

from __future__ import annotations

import shutil
import sys

import pytest
import yaml

from tests.conftest import tree_bytes
from tests.containers.conftest import as_nobody, as_root_of_a_machine_like, image_of, of, quoted
from tests.workflow.conftest import TINY

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# /dev/fuse, where there is one, as it usually is: open to all.
_MACHINE = """
mknod {folder}/fuse c 10 229 && chmod 666 {folder}/fuse
[ ! -e /dev/fuse ] || mount --bind {folder}/fuse /dev/fuse
"""


def test_ranks_and_single_jobs_make_the_bytes_of_roots_local_run(images, tiny, tmp_path):
    """An MPI stage, whose ranks enter the image each, and one that Snakemake puts inside."""
    home = tmp_path / "home"
    results = home / "run/results/obiwan"
    shutil.copytree(tiny, home / "run")
    for stage in ("cutouts", "evaluate"):
        shutil.rmtree(results / stage)
    (home / "run/mine.yaml").write_text(yaml.safe_dump({"systems": ["obiwan"], **TINY}))
    targets = [f"results/obiwan/cutouts/block-0000{block}.json" for block in (0, 1)]
    words = [sys.executable, "-m", "snakemake", "-s", images / "Snakefile", "-c", "2"]
    words += ["--configfile", "mine.yaml", "--sdm", "apptainer"]
    words += ["--allowed-rules", "obiwan_cutouts", "obiwan_evaluate", "--"]
    words += [*targets, "results/obiwan/evaluate/verdict.md"]
    script = f"cd {quoted(home / 'run')} && id -u && " + " ".join(map(quoted, words))
    folder = image_of("train").parent
    machine = _MACHINE.format(folder=quoted(tmp_path))
    result = as_root_of_a_machine_like(
        machine + as_nobody(script, home, images, folder), timeout=600, **of(images)
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[0] == "65534"
    assert tree_bytes(results) == tree_bytes(tiny / "results/obiwan")
    for path in (results / "cutouts/block-00000.json", results / "evaluate/verdict.md"):
        assert path.stat().st_uid == 65534
