"""Arguments in the shell line of a rule, from the declarations of its stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from shlex import join, quote
from typing import Any

from skyproof.core.options import as_word, home_of, options_model, to_words
from skyproof.workflow.config import stage_options


def files_of(inputs: Any, outputs: Any, instead: Mapping[str, str]) -> str:
    """Return `--in name=path ... --out name=path ...` for the named files of a rule.

    `instead` maps names of inputs to words: for inputs that are not files of the rule, and for
    those with too many paths for a line.
    """
    words = [
        word
        for name, paths in inputs.items()
        if name not in instead
        for word in _words(name, paths)
    ]
    words += [f"{name}={word}" for name, word in instead.items()]
    made = [word for name, paths in outputs.items() for word in _words(name, paths)]
    return " ".join([*(["--in", *words] if words else []), "--out", *made])


def _words(name: str, paths: str | Iterable[str]) -> list[str]:
    listed = [paths] if isinstance(paths, str) else paths
    return [f"{name}={quote(str(path))}" for path in listed]


def options_of(config: Any, stage: str) -> str:
    """Return the options of 'system.stage' as words, without those that a job sets."""
    return join(to_words(stage_options(config, stage)))


def job_options_of(stage: str, values: Mapping[str, Any], wildcards: Mapping[str, str]) -> str:
    """Return the options that a job sets, and the job's wildcards, as words.

    An option has the value of the wildcard of its name, else that of `values`, else its default.
    """
    given = {**values, **wildcards}
    words = [
        word
        for name in _set_by_jobs(stage)
        if given.get(name) is not None
        for word in (f"--{name.replace('_', '-')}", as_word(given[name]))
    ]
    named = [f"{name}={value}" for name, value in wildcards.items()]
    return join([*words, *(["--wildcards", *named] if named else [])])


@cache
def _set_by_jobs(stage: str) -> list[str]:
    """Return the names of the options that a job sets; cached, because it is called per job."""
    fields = options_model(stage).model_fields
    return [name for name, field in fields.items() if home_of(field) == "job"]
