"""Do not retry bad input: a second attempt fails at once with the message of the first.

Snakemake retries every failed job, because more memory or time may help. They do not help with bad
input (exit 3). The attempt that found it writes a no-retry note beside the receipt, of class "log".
The next attempt of the same run, with the same cache key, raises the same message. Another run
tries again, because the input may have been fixed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from skyproof.core import atomic
from skyproof.core.blocks import LOG_FOLDER
from skyproof.core.errors import InputError
from skyproof.core.formats import write

# The name of the run, which jobs inherit from the Snakemake process that started them.
RUN_VARIABLE = "SKYPROOF_RUN"


def path_of(output: Path) -> Path:
    """Return the path of the no-retry note of a job with this first output."""
    return output.parent / LOG_FOLDER / f"{output.name}.refused.json"


def raise_again(output: Path, cache_key: str) -> None:
    """Raise the InputError of an earlier attempt of this run with the same cache key, if any."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path_of(output).read_text(encoding="utf-8"))
        if _run() and (found["run"], found["recipe"]) == (_run(), cache_key):
            raise InputError.again(f"{found['message']} (found by an earlier attempt)")


def note(output: Path, cache_key: str, error: BaseException) -> None:
    """Write the no-retry note of an InputError, if a workflow runs.

    If the note cannot be written, none is kept: the next attempt repeats the work.
    """
    if isinstance(error, InputError) and _run():
        with suppress(OSError), atomic.replacing(path_of(output)) as temporary:
            content = {"run": _run(), "recipe": cache_key, "message": str(error)}
            write.json(temporary, content)


def _run() -> str:
    return os.environ.get(RUN_VARIABLE, "")
