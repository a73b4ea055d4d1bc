"""Images under SLURM: `srun` stays outside and starts ranks on two nodes, each in an image."""

from __future__ import annotations

import pytest

from skyproof.proof import manifest
from tests.cluster.conftest import cluster  # noqa: F401
from tests.containers.conftest import image_of, of
from tests.workflow.conftest import root_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_the_run_has_the_root_of_the_local_one(images, cluster, tiny, tmp_path, monkeypatch):  # noqa: F811
    folder = tmp_path / "run"
    monkeypatch.setenv("SKYPROOF_IMAGES", of(images)["SKYPROOF_IMAGES"])
    words = ("-s", str(images / "Snakefile"), "--sdm", "apptainer")
    code, output = cluster.finish(folder, *words, timeout=1200)
    assert code == 0, output
    assert root_of(folder) == root_of(tiny)
    jobs = manifest.read_provenance(folder / "results")["jobs"]
    found = {job["environment"]["APPTAINER_CONTAINER"] for job in jobs}
    assert found == {str(image_of(name)) for name in ("analyse", "generate", "train")}
    ranks = {job["stage"]: job["ranks"] for job in jobs if job["ranks"] > 1}
    spread = ("simulate", "cutouts", "split", "infer")
    assert ranks == {"obiwan.train": 2} | {f"obiwan.{stage}": 4 for stage in spread}
    for job in jobs:
        if job["ranks"] > 1:
            assert job["environment"]["SLURM_STEP_NODELIST"] == "regular[1-2]", job["stage"]
