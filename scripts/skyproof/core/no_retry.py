"""Bad input stays bad: a further attempt of the same run answers at once, without the work.

Snakemake retries whatever failed, as more memory or time may help; bad input (exit 3) they do not
help. The attempt that found it leaves a note beside the receipt, of class "log"; the next attempt
of the same run, with the same recipe, repeats its message. Another run looks again, as the input
may have been mended.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from skyproof.core import atomic
from skyproof.core.blocks import JOURNAL_FOLDER
from skyproof.core.errors import InputError, SkyproofError
from skyproof.core.formats import write

# The run's name, which jobs inherit from the Snakemake process that started them.
RUN_VARIABLE = "SKYPROOF_RUN"


def path_of(output: Path) -> Path:
    """Return where the note of a job with this first output lies."""
    return output.parent / JOURNAL_FOLDER / f"{output.name}.refused.json"


def repeat(output: Path, recipe: str) -> None:
    """Raise the error that an earlier attempt of this run, with this recipe, ended with."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(path_of(output).read_text(encoding="utf-8"))
        if _run() and (note["run"], note["recipe"]) == (_run(), recipe):
            error = InputError.__new__(InputError)
            SkyproofError.__init__(error, f"{note['message']} (found by an earlier attempt)")
            raise error


def leave(output: Path, recipe: str, error: BaseException) -> None:
    """Note an error if it is bad input and a workflow is running; what cannot be noted is not."""
    if isinstance(error, InputError) and _run():
        with suppress(OSError), atomic.replacing(path_of(output)) as temporary:
            note = {"run": _run(), "recipe": recipe, "message": str(error)}
            write.json(temporary, note)


def _run() -> str:
    return os.environ.get(RUN_VARIABLE, "")
