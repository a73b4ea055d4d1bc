"""Newly built images: reproducible, same results as a local run, and reported faults."""

from __future__ import annotations

import shutil
import sys

import pytest

from skyproof.containers.definition import definitions, read_recorded
from skyproof.proof import manifest
from tests.conftest import ROOT, launch, one_line, skyproof
from tests.containers.conftest import (
    as_nobody,
    as_root_of_a_machine_like,
    image_of,
    of,
    quoted,
    run,
)
from tests.workflow.conftest import planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# The image of a stage, if it is not `generate`.
TRAIN = {
    *("obiwan.train", "obiwan.infer"),
    *(f"sysnet.{stage}" for stage in ("tune", "train", "infer", "export")),
}
ANALYSE = {
    "obiwan.evaluate",
    *(f"sysnet.{stage}" for stage in ("tabulate", "split", "baselines", "stack", "evaluate")),
    "sysnet.summarise",
}


def test_the_build_is_the_recorded_one(images):
    """The same definitions and Debian packages give bitwise the same file system."""
    now, recorded = read_recorded(images), read_recorded(ROOT)
    for name in recorded:
        if now[name]["packages"] == recorded[name]["packages"]:
            assert now[name]["file_system"] == recorded[name]["file_system"], name
        else:
            pytest.skip(f"{name}: the mirror has other Debian packages than those recorded")


def test_the_images_pass_their_checks_and_start(images):
    result = skyproof("images", "verify", **of(images))
    assert result.returncode == 0, result.stderr


def test_all_systems_in_images_have_the_root_of_the_local_run(finished, tiny_all):
    roots = [manifest.read(folder / "results").root for folder in (finished, tiny_all)]
    assert roots[0] == roots[1]


def test_jobs_ran_in_their_images(finished):
    """According to the receipts, each MPI rank is in an image and the launcher outside."""
    jobs = manifest.read_provenance(finished / "results")["jobs"]
    for job in jobs:
        stage = job["stage"]
        name = "train" if stage in TRAIN else "analyse" if stage in ANALYSE else "generate"
        assert job["environment"]["APPTAINER_CONTAINER"] == str(image_of(name)), stage
    assert {job["stage"].partition(".")[0] for job in jobs} == {"obiwan", "sysnet"}
    assert {job["ranks"] for job in jobs} == {1, 2}


def test_a_changed_definition_runs_its_rules_again_and_what_follows(finished, images, tmp_path):
    assert planned(run(finished, images, "-n")) == {}
    copy = tmp_path / "checkout"
    shutil.copytree(images, copy, symlinks=True)
    path = copy / "containers/analyse.def"
    path.write_text(path.read_text() + "# changed\n")
    result = planned(run(finished, copy, "-n"))
    assert result["obiwan_evaluate"] == 1
    assert result["sysnet_split"] == 2
    assert not result.keys() & {"obiwan_simulate", "obiwan_train", "sysnet_mock"}


def test_only_gpu_rules_see_the_gpu(images, tmp_path):
    """As planned: `--nv` and the image for GPUs. Such an image was never built."""
    rules = ("obiwan_train", "sysnet_tune", "sysnet_train")
    words = ("--set-resources", *(f"{rule}:device=cuda" for rule in rules))
    lines = run(tmp_path, images, "-n", "-p", *words).stdout.splitlines()
    lines = [line for line in lines if "apptainer exec" in line]
    stages = {line: line.split("skyproof ")[1].split()[0] for line in lines}
    on_gpus = {stages[line] for line in lines if "--nv" in line}
    assert on_gpus == {"obiwan.train", "sysnet.tune", "sysnet.train"} < set(stages.values())
    for line in lines:
        assert ("/train-cuda-" in line) == ("--nv" in line), line
    result = run(tmp_path, images, "-c", "1", *words)
    assert result.returncode == 1
    assert "is missing; run `TORCH=cuda make images`" in result.stdout + result.stderr
    assert not (tmp_path / "results").exists()


def test_a_damaged_image_stops_the_run_before_its_first_job(images, tmp_path):
    copy = tmp_path / "images"
    copy.mkdir()
    for each in definitions():
        (copy / each.image.name).symlink_to(each.image)
    image = copy / image_of("train").name
    image.unlink()
    shutil.copy(image_of("train"), image)
    with image.open("r+b") as file:
        file.seek(image.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    environment = of(images) | {"SKYPROOF_IMAGES": str(copy)}
    verified = skyproof("images", "verify", **environment)
    assert verified.returncode == 4
    assert "train" in one_line(verified)
    result = snakemake(
        tmp_path / "run", "-c", "1", "--sdm", "apptainer", checkout=images, **environment
    )
    assert result.returncode == 1
    assert "is damaged or another image" in result.stdout + result.stderr
    assert not (tmp_path / "run/results").exists()


def test_worlds_of_one_rank_are_errors(images):
    """A launcher of another MPI family starts ranks in images that are not connected."""
    words = ["apptainer", "exec", "--bind", images, image_of("generate"), "python", "-m"]
    words += ["skyproof", "obiwan.simulate", "--out", "bricks=b.json", "--block", "00000"]
    result = launch([*words, "--ranks", "2"], cwd=images, **of(images))
    assert result.returncode == 4
    assert "requested 2 ranks, but this MPI world has 1" in one_line(result)


VERIFY = f"{sys.executable} -m skyproof images verify analyse"


def test_no_user_namespaces(images):
    """For root of a separate user namespace: only there can they be forbidden to it alone."""
    inside = f"echo 0 >/proc/sys/user/max_user_namespaces; {VERIFY}"
    script = f"unshare --user --map-root-user bash -c {quoted(inside)}"
    result = as_root_of_a_machine_like(script, APPTAINER_USERNS="1", **of(images))
    assert result.returncode == 4, result.stdout + result.stderr
    assert "this machine does not allow user namespaces" in one_line(result)


def test_a_normal_user_and_a_closed_dev_fuse(images, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    script = f"cd {tmp_path} && mknod fuse c 10 229 && chmod 600 fuse\n"
    script += "mount --bind fuse /dev/fuse\n"
    script += as_nobody(f"cd / && {VERIFY}", home, images, image_of("analyse").parent)
    result = as_root_of_a_machine_like(script, **of(images))
    assert result.returncode == 4, result.stdout + result.stderr
    assert "you have no access to /dev/fuse" in one_line(result)


def test_a_normal_user_without_sub_identifiers_makes_no_base(images, tmp_path):
    home = tmp_path / "home"
    (home / "none").mkdir(parents=True)
    program = f"{sys.executable} -m skyproof images build analyse --cache {home}/cache"
    environment = of(images) | {"SKYPROOF_IMAGES": str(home / "none")}
    result = as_root_of_a_machine_like(as_nobody(program, home, images), **environment)
    assert result.returncode == 4, result.stdout + result.stderr
    assert "the Debian base was not made" in one_line(result)
    assert "usermod --add-subuids" in one_line(result)


def test_no_space_for_the_cache(images, tmp_path):
    program = f"{sys.executable} -m skyproof images build --cache small"
    script = (
        f"cd {tmp_path} && mkdir small none && mount -t tmpfs -o size=100m none small\n{program}"
    )
    environment = of(images) | {"SKYPROOF_IMAGES": str(tmp_path / "none")}
    result = as_root_of_a_machine_like(script, **environment)
    assert result.returncode == 4, result.stderr
    assert "0.1 GB are free and an image's build takes" in one_line(result)


def test_signatures(images, tmp_path):
    """ed25519: signed with the expected key; the digest of the file system is unchanged."""
    make = "openssl genpkey -algorithm ed25519 -out {0}.pem"
    make += " && openssl pkey -in {0}.pem -pubout -out {0}.pub"
    for name in ("mine", "other"):
        made = launch(["bash", "-c", make.format(tmp_path / name)])
        assert made.returncode == 0, made.stderr
    copy = tmp_path / "images"
    copy.mkdir()
    shutil.copy(image_of("analyse"), copy)
    environment = of(images) | {"SKYPROOF_IMAGES": str(copy)}

    def verify(key: str):
        words = ("images", "verify", "analyse", "--public-key", tmp_path / f"{key}.pub")
        return skyproof(*words, **environment)

    assert "is not signed" in one_line(verify("mine"))
    signed = skyproof("images", "sign", "analyse", "--key", tmp_path / "mine.pem", **environment)
    assert signed.returncode == 0, signed.stderr
    assert verify("mine").returncode == 0
    assert verify("other").returncode == 4
    assert "its signature is not by" in one_line(verify("other"))


def test_packed_for_a_site_without_network(images, tmp_path):
    words = ("images", "pack", "analyse", "--to", tmp_path / "images.tar")
    packed = skyproof(*words, **of(images))
    assert packed.returncode == 0, packed.stderr
    there = tmp_path / "there"
    script = f"cd {tmp_path} && sha256sum -c images.tar.sha256"
    script += " && mkdir there && tar xf images.tar -C there"
    assert launch(["bash", "-c", script]).returncode == 0
    result = skyproof(
        "images", "verify", "analyse", **(of(images) | {"SKYPROOF_IMAGES": str(there)})
    )
    assert result.returncode == 0, result.stderr
