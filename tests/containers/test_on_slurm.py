"""Images under SLURM: `srun` stays outside and starts ranks on two nodes, each in an image."""

from __future__ import annotations

import re

import pytest

from skyproof.proof import manifest
from tests.cluster.conftest import cluster  # noqa: F401
from tests.containers.conftest import image_of, of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_the_run_has_the_root_of_the_local_one(images, cluster, tiny, tmp_path, monkeypatch):  # noqa: F811
    folder = tmp_path / "run"
    monkeypatch.setenv("SKYPROOF_IMAGES", of(images)["SKYPROOF_IMAGES"])
    words = ("-s", str(images / "Snakefile"), "--sdm", "apptainer", "--config", "systems=[obiwan]")
    code, output = cluster.finish(folder, *words, timeout=1200)
    assert code == 0, output
    assert manifest.read(folder / "results").root == manifest.read(tiny / "results").root
    jobs = manifest.read_provenance(folder / "results")["jobs"]
    ranks = {job["stage"]: job["ranks"] for job in jobs}
    ranks_of_jobs = [job["ranks"] for job in jobs]
    assert ranks["obiwan.simulate"] == ranks["obiwan.infer"] == 4
    assert ranks["obiwan.train"] == 2
    images_of = {job["stage"]: job["environment"]["APPTAINER_CONTAINER"] for job in jobs}
    assert set(images_of.values()) == {
        str(image_of(name)) for name in ("analyse", "generate", "train")
    }
    # (squeue forgets jobs that ended minutes ago.)
    log = (cluster.folder / "log/slurmctld.log").read_text()
    on_two = set(re.findall(r"JobId=(\d+).* (?:NodeList=|on )regular\[1-2\]", log))
    assert len(on_two) >= sum(count > 1 for count in ranks_of_jobs)
