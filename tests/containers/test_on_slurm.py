"""Images under SLURM: `srun` stays outside and starts ranks on two nodes, each in an image."""

from __future__ import annotations

import pytest

from skyproof.proof import manifest
from tests.cluster.conftest import cluster  # noqa: F401
from tests.containers.conftest import image_of, of
from tests.workflow.conftest import root_of, without

STAGES = ("split", "train", "infer", "evaluate")

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_the_run_has_the_root_of_the_local_one(images, cluster, tiny, tmp_path, monkeypatch):  # noqa: F811
    """From the split on: each of the three images, single jobs and jobs over two nodes."""
    folder = without(tiny, tmp_path / "run", *STAGES)
    monkeypatch.setenv("SKYPROOF_IMAGES", of(images)["SKYPROOF_IMAGES"])
    words = ("-s", str(images / "Snakefile"), "--sdm", "apptainer")
    rules = (*(f"obiwan_{stage}" for stage in STAGES), "obiwan", "all", "manifest")
    words += ("--allowed-rules", *rules, "--")
    code, output = cluster.finish(folder, *words, timeout=1200)
    assert code == 0, output
    assert root_of(folder) == root_of(tiny)
    jobs = manifest.read_provenance(folder / "results")["jobs"]
    jobs = [job for job in jobs if job["stage"].removeprefix("obiwan.") in STAGES]
    found = {job["environment"]["APPTAINER_CONTAINER"] for job in jobs}
    assert found == {str(image_of(name)) for name in ("analyse", "generate", "train")}
    ranks = {job["stage"]: job["ranks"] for job in jobs if job["ranks"] > 1}
    assert ranks == {"obiwan.train": 2, "obiwan.split": 4, "obiwan.infer": 4}
    for job in jobs:
        if job["ranks"] > 1:
            assert job["environment"]["SLURM_STEP_NODELIST"] == "regular[1-2]", job["stage"]
