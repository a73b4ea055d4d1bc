"""Definitions, records and checks of images; with files in the image format, without Apptainer."""

from __future__ import annotations

import platform
import re
import shutil
import struct
from pathlib import Path

import pytest

from skyproof.containers import build, check, sif
from skyproof.containers.client import explain
from skyproof.containers.definition import definition, definitions, read_recorded, write_recorded
from skyproof.core.errors import EnvironmentProblem, UsageError
from tests.conftest import ROOT, one_line, skyproof

CODES = {"x86_64": b"02\0", "aarch64": b"04\0"}
FOREIGN = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]


def write_sif(path: Path, *, machine: str = platform.machine(), time: int = 7) -> Path:
    """Write an image with a definition and a root file system of 1000 bytes."""
    header = struct.pack(
        "<32s10s3s3s16s8q", b"#!", b"SIF_MAGIC\0", b"01\0", CODES[machine], bytes([time] * 16),
        time, time, 0, 2, 128, 2 * 585, 128 + 2 * 585, 1010,
    )  # fmt: skip
    objects = [(0x4001, 10, b""), (0x4004, 1000, struct.pack("<ii", 1, 2))]
    offset, table = 128 + 2 * 585, b""
    for kind, size, extra in objects:
        table += struct.pack(
            "<i?III7q128s384s", kind, True, 1, 1, 0, offset, size, size, time, time, time, time,
            b"", extra,
        )  # fmt: skip
        offset += size
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(header + table + b"definition" + bytes(range(250)) * 4)
    return path


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A checkout's definitions and locks, with images of them and their record."""
    monkeypatch.delenv("SKYPROOF_IMAGES", raising=False)
    checkout = tmp_path / "checkout"
    for name in ("containers", "envs", "scripts"):
        ignore = shutil.ignore_patterns("*.sif", "__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    entries = {}
    for each in definitions(checkout):
        image = write_sif(each.image)
        entries[each.name] = {
            "definition": each.digest(), "file_system": sif.file_system_digest(image)
        }  # fmt: skip
    write_recorded(checkout, entries)
    return checkout


def test_intact_images_pass(copy):
    for each in definitions(copy):
        check.check(each)


@pytest.mark.parametrize("bit", [0, 3, 7])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_one_flipped_bit_is_found(copy, place, bit):
    train = definition("train", copy)
    data = bytearray(train.image.read_bytes())
    data[len(data) - 1000 + place] ^= 1 << bit
    train.image.write_bytes(data)
    with pytest.raises(EnvironmentProblem, match=r"damaged or another image.*make images"):
        check.check(train)
    check.check(definition("analyse", copy))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda image: image.unlink(), "is missing; run `make images`"),
        (lambda image: image.write_bytes(image.read_bytes()[:-1]), "lacks its last 1 bytes"),
        (lambda image: image.write_bytes(image.read_bytes()[:300]), "incomplete table"),
        (lambda image: image.write_bytes(b"<html>not found</html>"), "is not an Apptainer image"),
        (lambda image: image.write_bytes(b""), "is not an Apptainer image"),
        (lambda image: write_sif(image, machine=FOREIGN), f"is for {FOREIGN} and this machine"),
    ],
)
def test_bad_images_end_the_command_with_one_line_and_code_4(copy, spoil, line):
    spoil(definition("generate", copy).image)
    result = skyproof("images", "verify", "generate", PYTHONPATH=str(copy / "scripts"))
    assert result.returncode == 4
    assert line in one_line(result)
    assert "make images" in one_line(result)


def test_an_image_of_another_definition_than_recorded(copy):
    entries = read_recorded(copy)
    entries["train"]["definition"] = "0" * 64
    write_recorded(copy, entries)
    with pytest.raises(EnvironmentProblem, match=r"not those of containers/images\.yaml"):
        check.check(definition("train", copy))


def test_an_image_without_a_required_signature(copy, tmp_path):
    with pytest.raises(EnvironmentProblem, match="is not signed"):
        check.check(definition("train", copy), public_key=tmp_path / "key.pem")


def test_an_unknown_image(copy):
    with pytest.raises(UsageError, match="did you mean train"):
        definitions(copy, ["trian"])


def test_normalised_images_are_the_same_file(tmp_path):
    first, second = (write_sif(tmp_path / f"{time}.sif", time=time) for time in (5, 9))
    digest = sif.file_system_digest(first)
    assert first.read_bytes() != second.read_bytes()
    sif.normalise(first)
    sif.normalise(second)
    assert first.read_bytes() == second.read_bytes()
    assert sif.file_system_digest(first) == digest


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("containers/train.def", {"train"}),
        ("envs/torch.lock.txt", {"train"}),
        ("envs/analyse.lock.txt", {"analyse"}),
        ("containers/install", {"generate", "train", "analyse"}),
        ("containers/base.yaml", {"generate", "train", "analyse"}),
        ("envs/all.lock.txt", set()),
        ("scripts/skyproof/obiwan/network.py", set()),
        ("scripts/skyproof/containers/build.py", set()),
    ],
)
def test_what_an_image_is_made_from(copy, part, changed):
    """A changed definition or lock gives another image; a changed source does not."""
    before = {each.name: each.image.name for each in definitions(copy)}
    path = copy / part
    path.write_text(path.read_text() + "\n# changed\n")
    after = {each.name: each.image.name for each in definitions(copy)}
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_record_is_of_the_definitions_in_the_tree():
    """`make images RECORD=1` after a change of a definition or a lock; images are built then."""
    recorded = read_recorded(ROOT)
    for each in definitions():
        assert recorded[each.name]["definition"] == each.digest(), each.name
        assert len(recorded[each.name]["file_system"]) == 64


def test_images_hold_what_their_locks_say():
    """The versions found in the built images, against the locks."""
    for each in definitions():
        held = read_recorded(ROOT)[each.name]["packages"]["python"]
        held = {re.sub(r"[-_.]+", "-", name.lower()): held[name] for name in held}
        for lock in each.locks:
            for line in (ROOT / "envs" / lock).read_text().splitlines():
                name, pinned, rest = line.partition("==")
                if not pinned or line[0] in " #" or ";" in line:
                    continue
                assert held[name].partition("+")[0] == rest.split()[0], (each.name, name)


def test_the_image_for_gpus_differs_in_the_build_of_torch_alone():
    """It is built by name only: neither `make images` nor a run on CPUs needs it."""
    assert [each.name for each in definitions()] == ["analyse", "generate", "train"]
    ours, other = definition("train"), definition("train", device="cuda")
    assert other.name == "train-cuda"
    assert [*ours.locks, *other.locks] == [
        *("train.lock.txt", "torch.lock.txt", "train.lock.txt", "torch-cuda.lock.txt")
    ]
    pinned = [pins(ROOT / f"envs/{name}.lock.txt") for name in ("torch", "all", "torch-cuda")]
    assert pinned[0]["torch"] == pinned[2]["torch"]
    assert "nvidia-cuda-runtime" in pinned[2]
    shared = pinned[1].keys() & pinned[2].keys()
    assert {name: pinned[1][name] for name in shared} == {name: pinned[2][name] for name in shared}


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("held", "driver", "line"),
    [
        ({"nvidia-cuda-runtime": "13.0.96"}, (13, 0), None),
        ({"nvidia-cuda-runtime": "13.0.96"}, (12, 8), r"is for CUDA 13\.0, but .* most CUDA 12\.8"),
        ({"nvidia-cuda-runtime-cu12": "12.8.90"}, (12, 2), None),
        ({"nvidia-cuda-runtime-cu12": "12.8.90"}, None, "no NVIDIA driver"),
        ({"torch": "2.13.0+cpu"}, (13, 0), "holds no CUDA and jobs have device=cuda"),
    ],
)
def test_a_driver_older_than_the_images_cuda(copy, monkeypatch, held, driver, line):
    """With stand-ins for the driver and for the recorded entry of an image."""
    monkeypatch.setattr("skyproof.core.cuda.cuda_of_driver", lambda: driver)
    write_recorded(copy, {"train-cuda": {"packages": {"python": held}}})
    chosen = definition("train", copy, device="cuda")
    if line is None:
        check.check_driver(chosen)
    else:
        with pytest.raises(EnvironmentProblem, match=line):
            check.check_driver(chosen)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("FATAL: write /x: no space left on device", "APPTAINER_TMPDIR"),
        ("squashfuse_ll exited: fuse: failed to open /dev/fuse: Permission denied", "chmod 666"),
        ("ERROR : Failed to create user namespace: maximum number", "max_user_namespaces"),
        (
            "ERROR : Requesting capability set 0x1 while permitted capability",
            "default capabilities",
        ),
        ("FATAL: no mapping entry found in /etc/subuid for me", "--add-subuids"),
        ("FATAL: the image's architecture (arm64) could not run on the host's (amd64)", "another"),
        ("INFO: x\nFATAL:   something new\n", "apptainer failed: FATAL:   something new"),
    ],
)
def test_errors_of_apptainer_are_one_line_with_the_remedy(said, remedy):
    line = explain(said)
    assert remedy in line
    assert "\n" not in line


def test_no_room_for_a_build(tmp_path):
    assert build.builds_that_fit(tmp_path, 1) > 1
    with pytest.raises(EnvironmentProblem, match=r"are free and an image's build takes.*--cache"):
        build.builds_that_fit(tmp_path, 1 << 60)


def test_apptainer_is_not_there(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = skyproof("images", "verify", PYTHONPATH=str(copy / "scripts"))
    assert result.returncode == 4
    assert "apptainer is not on PATH; install it" in one_line(result)


def test_an_old_apptainer(copy, tmp_path, monkeypatch):
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\necho apptainer version 1.2.5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(EnvironmentProblem, match=r"version 1\.2\.5 is too old; install 1\.3"):
        check.check_machine(definition("train", copy).image)
