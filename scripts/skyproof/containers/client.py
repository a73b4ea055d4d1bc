"""Run Apptainer through spython; turn its failures into one-line errors with a remedy.

spython's `build` returns None for a failed build, and its `run` raises an unrelated error for a
failed run. Only its function `run_command` reports exit code and output; it is used for everything.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem

RANGE = (
    "a normal user needs a range of sub-identifiers for this: "
    "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME`"
)

# Pattern in the output of Apptainer, and the remedy.
_REMEDIES = (
    (r"no space left on device", "the disk is full: free some, or name a folder on a larger one "
     "(for a build --cache, for a run APPTAINER_TMPDIR and TMPDIR)"),
    (r"/dev/fuse.*permission denied|fuse: failed to open",
     "you have no access to /dev/fuse: ask for `chmod 666 /dev/fuse`, or add "
     "--unsquash to the arguments of Apptainer (slower)"),
    (r"user namespace|CLONE_NEWUSER|max_user_namespaces|setgroups.*not permitted",
     "this machine does not allow user namespaces: ask for "
     "`sysctl user.max_user_namespaces=15000` (and, on Debian, "
     "kernel.unprivileged_userns_clone=1)"),
    (r"subuid|subgid|no mapping entry", RANGE),
    (r"capability set", "root lacks a capability here: "
     "`apptainer config global --set \"root default capabilities\" no`"),
    (r"does not match host|incompatible.*arch|exec format error|architecture",
     "the image is for another processor: build it on this machine with `make images`"),
    (r"invalid superblock|magic number|not a SIF|not recognized|corrupt|squashfs.*(fail|error)",
     "the image is damaged: delete it and run `make images`"),
)  # fmt: skip


def apptainer(
    *words: str | Path, env: Mapping[str, str] | None = None, image: Path | None = None
) -> str:
    """Run `apptainer WORDS` and return its output (EnvironmentProblem where it failed).

    `image` is the image of the command, for the error message.
    """
    from spython.utils import run_command

    if shutil.which("apptainer") is None:
        raise EnvironmentProblem(
            "apptainer is not on PATH; install it (apptainer.org, version 1.3 or later), or run "
            "without --sdm apptainer"
        )
    result = run_command(
        ["apptainer", *map(str, words)], quiet=True, environ={**os.environ, **(env or {})}
    )
    output = "\n".join(result["message"])
    if result["return_code"] != 0:
        raise EnvironmentProblem(explain(output, image))
    return output


def explain(output: str, image: Path | None = None) -> str:
    """Return one line for a failed command: the image, and the remedy or the last error lines."""
    about = f"{image}: " if image else ""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, output, re.IGNORECASE | re.DOTALL):
            return f"{about}{remedy}"
    return f"{about}apptainer failed: {last_words(output.splitlines())}"


def last_words(lines: Sequence[str]) -> str:
    """Return the first three lines of errors, else the last line, joined by '; '."""
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in lines]
    plain = [line for line in plain if line]
    loud = [line for line in plain if re.match(r"(FATAL|ERROR|error|cause|\w*Error)", line)]
    return "; ".join(loud[:3] or plain[-1:]) or "no message"
