"""The command line: `python -m skyproof <system>.<stage> --in name=path --out name=path ...`.

It dispatches to the stages and commands of the systems and to the tools that belong to no system.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from skyproof.core import numerics
from skyproof.core.errors import (
    SkyproofError,
    UsageError,
    did_you_mean,
    is_machine_problem,
    report,
)

if TYPE_CHECKING:
    from skyproof.core.commands import Command, Parser
    from skyproof.core.options import File, StageOptions

TOOLS = {
    "config": "check a configuration; --write: config.yaml, options.md, config.schema.json",
    "summary": "print the verdicts of a run and the paths of its products",
    "plan": "estimate hours, memory and disk of a run, one line per stage",
    "doctor": "check a site (--profile slurm) or this machine before the first job",
    "manifest": "collect the checksums of a run into its manifest, and check them",
    "verify": "check results against their manifest and compare them with a reference",
    "root": "print the root digest of a run, which determines every byte; sign it (--sign)",
    "bag": "pack a run for publication (BagIt)",
    "crate": "describe a run for publication (Workflow Run RO-Crate)",
    "images": "build, check, sign or pack the container images of the rules",
}


def main(words: list[str] | None = None) -> int:
    """Dispatch to a stage, a command or a tool; return the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe. The rest of the buffer must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (SkyproofError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and not is_machine_problem(error):
            raise
        return report(error, "skyproof")


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    command, rest = words[0], words[1:]
    return _tool(command, rest) if command in TOOLS else _of_system(command, rest)


def _overview() -> str:
    from skyproof.core.commands import commands, first_line
    from skyproof.core.options import stages, systems

    lines = [
        "usage: python -m skyproof <system>.<stage> --in name=path --out name=path --option value",
        "       python -m skyproof <system>.<command> ...",
        "       python -m skyproof <tool> ...",
        "",
        "--help after a stage, a command or a tool prints its help. Stages and commands:",
    ]
    for system in systems():
        known: dict[str, Command | type] = {**stages(system), **commands(system)}
        lines += [f"  {system}.{name:<12} {first_line(value)}" for name, value in known.items()]
    lines += ["", "The tools:", *(f"  {name:<12} {text}" for name, text in TOOLS.items())]
    lines += ["", "exit codes: 0 done, 2 usage or configuration, 3 bad input, 4 environment"]
    lines += ["            (verify has other codes: see its --help)"]
    return "\n".join(lines)


def _of_system(name: str, words: list[str]) -> int:
    from skyproof.core.commands import commands
    from skyproof.core.options import stages

    system, dot, own = name.partition(".")
    if not dot:
        raise UsageError(f"unknown command {name}{did_you_mean(name, TOOLS)}")
    known = stages(system)
    if own in known:
        return _stage(name, known[own], words)
    others = commands(system)
    if own in others:
        return _command(name, others[own], words)
    what = "stage or command" if others else "stage"
    raise UsageError(f"unknown {what} {name}{did_you_mean(own, [*known, *others])}")


def _command(name: str, command: Command, words: list[str]) -> int:
    """Run a command of a system under the portable numerics of stages, on one thread."""
    numerics.enforce("portable", 1)
    parser = _parser(name, command.__doc__)
    try:
        return command(parser, words)
    except BrokenPipeError:
        raise
    except Exception as error:
        return report(error, f"skyproof {name}", debug="--debug" in words)


def _stage(stage: str, model: type[StageOptions], words: list[str]) -> int:
    from skyproof.core.options import from_words

    given, rest = _stage_parser(stage, model).parse_known_args(words)
    options = from_words(model, _pairs(rest))
    numerics.enforce(options.numerics, given.threads)

    # The runner imports numpy, which must see the environment of the numerics profile.
    from skyproof.core.call import Call
    from skyproof.core.stage import execute
    from skyproof.workflow.code import code_digest, library_versions

    call = Call(
        stage=stage,
        inputs=_files("input", model.inputs, given.inputs),
        outputs=_files("output", model.outputs, given.outputs),
        options=options,
        ranks=given.ranks,
        threads=given.threads,
        device=given.device,
        code=code_digest(stage),
        libraries=library_versions(stage),
        wildcards=_wildcards(given.wildcards),
        debug=given.debug,
    )
    return execute(call)


def _parser(name: str, description: str | None, epilog: str | None = None) -> Parser:
    from skyproof.core.commands import Parser

    parser = Parser(
        prog=f"python -m skyproof {name}",
        description=inspect.cleandoc(description or ""),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _stage_parser(stage: str, model: type[StageOptions]) -> Parser:
    parser = _parser(stage, model.__doc__, _reference(model))
    add: Any = parser.add_argument
    serial = "" if model.parallel else "; this stage runs on the first of them"
    add("--in", dest="inputs", nargs="+", action="extend", default=[], metavar="name=path")
    add("--out", dest="outputs", nargs="+", action="extend", default=[], metavar="name=path")
    add("--ranks", type=_count, default=1, metavar="N", help=f"number of MPI ranks [1]{serial}")
    add(
        "--threads",
        type=_count,
        default=1,
        metavar="N",
        help="threads a rank (native numerics) [1]",
    )
    add("--device", default="cpu", choices=("cpu", "cuda"), help="where a network runs [cpu]")
    add(
        "--wildcards",
        nargs="+",
        action="extend",
        default=[],
        metavar="name=value",
        help="wildcards of the workflow's job, for the receipt only",
    )
    return parser


def _wildcards(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for name, given, value in pairs:
        if not (name and given and value):
            raise UsageError(f"wildcard {name + given + value!r}: expected name=value")
    return {name: value for name, _, value in pairs}


def _count(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a number >= 1")
    return value


def _reference(model: type[StageOptions]) -> str:
    lines = []
    for title, declared in (("inputs", model.inputs), ("outputs", model.outputs)):
        lines.append(f"{title}:")
        for name, form in declared.items():
            notes = [n for n, on in (("several", form.many), ("optional", form.optional)) if on]
            lines.append(
                f"  {name:<14} {form.meaning}" + (f" ({', '.join(notes)})" if notes else "")
            )
    lines.append("options (with units and defaults):")
    for name, field in model.model_fields.items():
        lines.append(f"  --{name.replace('_', '-'):<22} {_option_line(field)}")
    return "\n".join(lines)


def _option_line(field: pydantic.fields.FieldInfo) -> str:
    from skyproof.core.options import unit_of

    unit = f" [{unit_of(field)}]" if unit_of(field) else ""
    return f"{field.description}{unit}, default {field.get_default(call_default_factory=True)!r}"


def _pairs(words: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise UsageError(f"unexpected word {word!r}")
        name, given, value = word[2:].partition("=")
        if not given:
            try:
                value = next(rest)
            except StopIteration:
                raise UsageError(f"option --{name} needs a value") from None
        pairs[name.replace("-", "_")] = value
    return pairs


def _files(kind: str, declared: dict[str, File], words: list[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for word in words:
        name, given, path = word.partition("=")
        if not given or not path:
            raise UsageError(f"{kind} {word!r}: expected name=path")
        if name not in declared:
            raise UsageError(f"unknown {kind} {name}{did_you_mean(name, declared)}")
        found.setdefault(name, []).append(Path(path))
    for name, form in declared.items():
        if name not in found and not form.optional:
            raise UsageError(f"{kind} {name} is missing: --{kind[:-3]} {name}=PATH, {form.meaning}")
        if len(found.get(name, [])) > 1 and not form.many:
            raise UsageError(f"{kind} {name} was given {len(found[name])} times; expected one file")
    return found


def _tool(name: str, words: list[str]) -> int:
    from skyproof.core.commands import Parser

    parser = Parser(prog=f"python -m skyproof {name}", description=TOOLS[name])
    own = {"config": _config, "summary": _summary, "plan": _plan, "doctor": _doctor}
    if name in own:
        return own[name](parser, words)
    if name == "images":
        from skyproof.containers.commands import images

        return images(parser, words)
    from skyproof.proof.commands import COMMANDS

    return COMMANDS[name](parser, words)


def _config(parser: argparse.ArgumentParser, words: list[str]) -> int:
    parser.add_argument("file", nargs="?", type=Path, help="a configuration to check")
    parser.add_argument("--write", action="store_true", help="write the generated files here")
    given = parser.parse_args(words)
    from skyproof.workflow import config

    if given.write:
        for path in config.write_generated(Path.cwd()):
            print(f"wrote {path.relative_to(Path.cwd())}")
    elif given.file is not None:
        config.load_file(given.file)
        print(f"{given.file}: valid")
    else:
        print(config.as_yaml(), end="")
    return 0


def _summary(parser: argparse.ArgumentParser, words: list[str]) -> int:
    parser.add_argument("folder", type=Path, help="the folder of results")
    given = parser.parse_args(words)
    from skyproof.workflow.summary import summary

    print(summary(given.folder))
    return 0


def _plan(parser: argparse.ArgumentParser, words: list[str]) -> int:
    from skyproof.workflow.plan.table import plan

    return plan(parser, words)


def _doctor(parser: argparse.ArgumentParser, words: list[str]) -> int:
    from skyproof.workflow.doctor.checks import doctor

    return doctor(parser, words)


if __name__ == "__main__":
    sys.exit(main())
