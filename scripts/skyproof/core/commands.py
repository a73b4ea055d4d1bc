"""Commands of a system: interactive programs without a receipt and without a rule.

A command is a public function in `skyproof/<system>/commands.py`, `name(parser, words) -> int`. It
adds its arguments to the parser, parses the words, does the work and returns the exit code. The
first line of its docstring appears in the overview; the whole docstring is its help. Every
`--help` imports the module: heavy libraries are imported inside the functions.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import NoReturn

from skyproof.core.errors import UsageError
from skyproof.core.options import stages


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError and accepts full option names only."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


Command = Callable[[argparse.ArgumentParser, list[str]], int]


def commands(system: str) -> dict[str, Command]:
    """Return the commands of a system by name, in the order of their definition.

    Raise UsageError for an unknown system, ValueError for a command with the name of a stage.
    """
    known = stages(system)
    module = f"skyproof.{system}.commands"
    if importlib.util.find_spec(module) is None:
        return {}
    found: dict[str, Command] = {
        name: value
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isfunction(value) and value.__module__ == module and not name.startswith("_")
    }
    for name in found:
        if name in known:
            raise ValueError(f"{module}: {name} is also a stage of {system}")
    return found


def first_line(described: Command | type) -> str:
    """Return the first line of a docstring, used as short help."""
    return (described.__doc__ or "").strip().partition("\n")[0]
