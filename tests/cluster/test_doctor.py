"""`doctor` on a real SLURM, and an example of a site over the profile."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from tests.cluster.conftest import examine
from tests.conftest import ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_working_cluster_passes_all_checks_except_the_gpu(cluster, tmp_path):
    """Its GPUs are character devices; torch sees none, and no job asks for one."""
    code, lines = examine(cluster, "slurm", tmp_path / "run")
    assert code == 0, lines
    assert {what for what, text in lines.items() if not text.startswith("ok ")} == {"gpu on gpu"}
    assert lines["gpu on gpu"].startswith("warn SLURM gave number 0")
    for kind in ("regular", "knl"):
        assert "2 ranks in one world" in lines[f"mpi on {kind}"]
        assert f"{kind}1, {kind}2 wrote" in lines[f"files on {kind}"]
    assert "no accounts are kept" in lines["status"]


def test_each_wrong_setting_is_reported_with_its_remedy(cluster, tmp_path):
    profile = tmp_path / "wrong"
    shutil.copytree(ROOT / "profiles/slurm", profile)
    words = yaml.safe_load((profile / "config.yaml").read_text())
    words["slurm-status-command"] = "sacct"
    words["default-resources"]["launcher"] = "srun --mpi=none"
    words["default-resources"]["partitions"] = str(profile / "partitions.yaml")
    (profile / "config.yaml").write_text(yaml.safe_dump(words))
    partitions = yaml.safe_load((profile / "partitions.yaml").read_text())
    partitions["partitions"]["mic"] = partitions["partitions"].pop("knl")
    (profile / "partitions.yaml").write_text(yaml.safe_dump(partitions))
    code, lines = examine(cluster, profile, tmp_path / "run")
    assert code == 4
    failed = {what: text for what, text in lines.items() if text.startswith("fail")}
    assert set(failed) == {"status", "partition mic", "mpi on regular"}
    assert failed["status"].endswith("use squeue (in the profile)")
    assert f"correct {profile}/partitions.yaml" in failed["partition mic"]
    assert "2 ranks see a world of 1; correct launcher" in failed["mpi on regular"]
    assert "pmi2" in failed["mpi on regular"]


def test_a_site_over_the_profile_reaches_the_jobs(cluster, tmp_path):
    """The words of a Knights Landing site, on this cluster's own partitions."""
    site = yaml.safe_load((ROOT / "profiles/slurm/sites/knl/config.yaml").read_text())
    words = site["default-resources"]
    words |= {"partitions": "profiles/slurm/partitions.yaml", "mpi_ranks": 4}
    words["environment"] += " PBS_JOBID=reached"  # one of those that a receipt records
    del words["slurm_account"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(site))
    run = tmp_path / "run"
    # Words of --config take the place of the profile's, numerics among them.
    one_job = ("--config", "numerics=native", "obiwan={block_size: 4}")
    words = ("--profile", str(tmp_path), "--until", "obiwan_simulate", *one_job)
    code, output = cluster.finish(run, *words)
    assert code == 0, output
    sent = cluster.ask("squeue", "--states=all", "-h", "-O", "Feature:40,NumNodes:10,StdOut:300")
    ours = [line.split()[:2] for line in sent.splitlines() if str(run) in line]
    assert ours == [["knl&quad&cache", "2"]]  # SLURM's way to write them
    receipt = run / "results/obiwan/simulate/.journal/simulated-00000.json.receipt.json"
    ran = json.loads(receipt.read_text())
    assert ran["run"]["environment"]["PBS_JOBID"] == "reached"
    assert (ran["run"]["ranks"], ran["numerics"]) == (4, "native")
