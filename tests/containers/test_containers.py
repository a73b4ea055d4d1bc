"""Images built just now: reproducible, equal to a local run, with faults that are named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from skyproof.images.client import explain
from skyproof.images.definition import definition, definitions, read_record
from skyproof.proof import manifest
from tests.conftest import ROOT, launch, one_line, skyproof
from tests.containers.conftest import as_root_of_a_machine_like, of
from tests.workflow.conftest import planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def run(folder: Path, checkout: Path, *words: str):
    return snakemake(
        folder, *words, "--sdm", "apptainer", checkout=checkout, timeout=900, **of(checkout)
    )


@pytest.fixture(scope="session")
def finished(images, tmp_path_factory) -> Path:
    """The tiny run in images, two ranks a stage."""
    folder = tmp_path_factory.mktemp("inside")
    result = run(folder, images, "-c", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_build_is_the_recorded_one(images):
    """The same definitions and Debian packages give the same file system, to the bit."""
    now, recorded = read_record(images), read_record(ROOT)
    for name in recorded:
        if now[name]["packages"] == recorded[name]["packages"]:
            assert now[name]["file_system"] == recorded[name]["file_system"], name
        else:
            pytest.skip(f"{name}: the mirror has other Debian packages than the record")


def test_they_are_sound_and_start(images):
    result = skyproof("images", "verify", **of(images))
    assert result.returncode == 0, result.stderr


def test_the_run_in_images_has_the_root_of_the_local_run(finished, tiny):
    roots = [manifest.read(folder / "results").root for folder in (finished, tiny)]
    assert roots[0] == roots[1]


def test_jobs_ran_in_their_images(finished, images):
    """As the receipts say; each MPI rank in an image, the launcher outside."""
    jobs = manifest.read_provenance(finished / "results")["jobs"]
    wanted = {"train": "train", "infer": "train", "evaluate": "analyse"}
    for job in jobs:
        environment = wanted.get(job["stage"].partition(".")[2], "generate")
        image = definition(environment, images).image
        assert job["environment"]["APPTAINER_CONTAINER"] == str(image), job["stage"]
    assert {job["ranks"] for job in jobs} == {1, 2}


def test_a_changed_definition_runs_its_rules_again_and_what_follows(finished, images, tmp_path):
    assert planned(run(finished, images, "-n")) == {}
    copy = tmp_path / "checkout"
    shutil.copytree(images, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sif"))
    path = copy / "containers/train.def"
    path.write_text(path.read_text() + "# changed\n")
    environment = of(images) | {"SKYPROOF_IMAGES": str(images / "containers")}
    result = snakemake(finished, "-n", "--sdm", "apptainer", checkout=copy, **environment)
    assert planned(result) == {"obiwan_train": 1, "obiwan_infer": 1, "obiwan_evaluate": 1}


def test_only_gpu_rules_see_the_gpu(images, tmp_path):
    words = ("-n", "-p", "--set-resources", "obiwan_train:device=cuda")
    lines = [line for line in run(tmp_path, images, *words).stdout.splitlines() if "exec" in line]
    assert len(lines) >= 4
    assert {line.split("skyproof ")[1].split()[0] for line in lines if "--nv" in line} == {
        "obiwan.train"
    }


def test_a_damaged_image_stops_the_run_before_its_first_job(images, tmp_path):
    copy = tmp_path / "images"
    copy.mkdir()
    for each in definitions(images):
        shutil.copy(each.image, copy)
    image = copy / definition("train", images).image.name
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


def test_worlds_of_one_rank_are_refused(images):
    """What a launcher of another MPI family starts: ranks in images that do not see each other."""
    words = ["apptainer", "exec", "--bind", images, definition("generate", images).image]
    words += [
        "python",
        "-m",
        "skyproof",
        "obiwan.simulate",
        "--out",
        "bricks=b.json",
        "--ranks",
        "2",
    ]
    result = launch([*words, "--block", "00000"], cwd=images, **of(images))
    assert result.returncode == 4
    assert "asked for 2 ranks, but this MPI world has 1" in one_line(result)


FAULTS = {
    "no user namespaces": (
        "unshare --user --map-root-user bash -c"
        " 'echo 0 > /proc/sys/user/max_user_namespaces; apptainer exec --userns {image} true'",
        "no user namespaces",
    ),
    "/dev/fuse closed": (
        # The bind mount leads around folders that only root may enter.
        "mount --bind $(dirname {image}) /mnt && mknod {folder}/fuse c 10 229 &&"
        " chmod 600 {folder}/fuse && mount --bind {folder}/fuse /dev/fuse &&"
        " HOME=/ setpriv --reuid 65534 --regid 65534 --clear-groups"
        " apptainer exec --no-home /mnt/$(basename {image}) true",
        "/dev/fuse is closed to you",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_machine_that_cannot_run_images(images, tmp_path, fault):
    script, line = FAULTS[fault]
    image = definition("analyse", images).image
    result = as_root_of_a_machine_like(f"cd / && {script.format(image=image, folder=tmp_path)}")
    assert result.returncode != 0, "the fault was not there"
    assert line in explain(result.stdout + result.stderr, image), result.stderr


def test_no_space_for_the_cache(images, tmp_path):
    program = f"{sys.executable} -m skyproof images build --cache {tmp_path}/small"
    result = as_root_of_a_machine_like(
        f"mkdir {tmp_path}/small && mount -t tmpfs -o size=100m none {tmp_path}/small &&"
        f" mkdir {tmp_path}/none && cd {images} &&"
        f" PYTHONPATH=scripts SKYPROOF_IMAGES={tmp_path}/none {program}"
    )
    assert result.returncode == 4, result.stderr
    assert "0.1 GB are free and an image's build takes" in one_line(result)


def test_signatures(images, tmp_path):
    """ed25519: signed and by whom it should be; the file system's digest stays."""
    make = "openssl genpkey -algorithm ed25519 -out {0}.pem"
    make += " && openssl pkey -in {0}.pem -pubout -out {0}.pub"
    for name in ("mine", "other"):
        made = launch(["bash", "-c", make.format(tmp_path / name)])
        assert made.returncode == 0, made.stderr
    copy = tmp_path / "images"
    copy.mkdir()
    shutil.copy(definition("analyse", images).image, copy)
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
