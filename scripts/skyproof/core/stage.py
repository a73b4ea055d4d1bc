"""The runner of stages: everything that is common to all stages."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from skyproof.core import atomic, blocks, no_retry, receipts, seeds
from skyproof.core.call import Call, cache_key, input_identities
from skyproof.core.comm import Comm, SerialComm, connect, on_first_rank, share
from skyproof.core.errors import InputError, SkyproofError, as_skyproof_error, naming, report
from skyproof.core.numerics import threads_of
from skyproof.core.options import File
from skyproof.core.progress import Progress

T = TypeVar("T")
Work = Callable[[str, blocks.ItemFiles], Mapping[str, Any] | None]

_FLUSH_S = 0.5
_KEY_DIGITS = 16  # of the cache key in folder names


@dataclass
class Context:
    """The argument `context` of a stage: seed, ranks, device, log and helpers."""

    stage: str
    seed: int | None = None
    comm: Comm = field(default_factory=SerialComm)
    threads: int = 1
    device: str = "cpu"
    cache_key: str = ""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("skyproof"))
    finals: dict[Path, Path] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def stream(self, *names: object) -> np.random.Generator:
        """Return the random stream of (seed, stage, names...), equal on all ranks."""
        if self.seed is None:
            raise TypeError(f"{self.stage} declares no seed; derive its options from SeededOptions")
        return seeds.stream(self.seed, self.stage, *names)

    def progress(self, total: int, label: str) -> Progress:
        """Return a progress bar or log lines, silent on all ranks but the first."""
        return Progress(total, label, self.log, quiet=self.comm.rank != 0)

    def note(self, name: str, value: Any) -> None:
        """Note (on rank 0) a choice of the machine that affects numbers; the manifest lists it."""
        self.notes[name] = value

    def final(self, output: Path) -> Path:
        """Return the final path of a declared output; the stage gets its temporary path."""
        return self.finals.get(output, output)

    def checkpoints(self, output: Path) -> Path:
        """Return the folder for checkpoints beside a declared output: `ckpts/<cache key>`.

        A call with another cache key uses another folder and does not continue from them.
        """
        return self.final(output).parent / "ckpts" / self.cache_key[:_KEY_DIGITS]

    def each(
        self, items: Sequence[str], work: Work, index: Path, *, skip_bad: bool = False
    ) -> None:
        """Make every item of a block, distributed over the ranks, and write the block index.

        `work(item, files)` writes the files of an item with `files.write(relative)` and returns the
        `info` of the item in the index. `index` is the declared output, as given to the stage.

        An item with bad input is logged and the others continue. Afterwards the block fails with
        exit 3, and the resume log keeps the finished items. With `skip_bad`, the index lists the
        item with the reason and without files.
        """
        final = self.final(index)
        log = blocks.ResumeLog(final.parent, self.stage, self.cache_key)
        mine = share(sorted(items), self.comm)
        progress = self.progress(len(mine), f"{self.stage} {final.stem}")
        entries: dict[str, dict[str, Any]] = {}
        bad: dict[str, str] = {}
        for item in mine:
            try:
                entries[item] = blocks.make_item(item, work, log)
            except InputError as error:
                bad[item] = str(error)
                self.log.warning("%s left out: %s", item, error)
            progress.advance(note=item)
        progress.close()
        parts = self.comm.gather((entries, bad))
        on_first_rank(self.comm, lambda: self._write_index(index, parts or [], skip_bad))

    def _write_index(
        self,
        index: Path,
        parts: list[tuple[dict[str, Any], dict[str, str]]],
        skip_bad: bool,
    ) -> None:
        final = self.final(index)
        entries = {name: entry for made, _ in parts for name, entry in made.items()}
        bad = {name: reason for _, failed in parts for name, reason in failed.items()}
        if bad and not skip_bad:
            others = f"the other {len(entries)} are finished" if entries else "none is finished"
            names = ", ".join(sorted(bad)[:5]) + (", ..." if len(bad) > 5 else "")
            raise InputError(
                final.name, f"{len(bad)} items failed ({names}), {others}; first: {bad[min(bad)]}"
            )
        for name, reason in bad.items():
            # An index must not contain paths of a machine.
            reason = re.sub(r"(?<!\S)/(?:[^\s/]+/)*", "", reason.replace(f"{final.parent}/", ""))
            entries[name] = {"info": {"bad": reason}, "files": []}
        blocks.write_index(index, self.stage, entries)


def execute(call: Call) -> int:
    """Run one call on this rank and return its exit code; print errors as one line on stderr."""
    # Libraries log warnings only; healpy would log every transform.
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S",
        stream=sys.stderr,
    )  # fmt: skip
    logging.getLogger("skyproof").setLevel(logging.INFO)
    try:
        comm = connect(call.ranks, lambda problem: os._exit(_report(problem, call)))
    except SkyproofError as error:
        return _report(error, call)
    try:
        if type(call.options).parallel:
            _run(call, comm)
        else:
            on_first_rank(comm, lambda: _run_serial(call))
    except Exception as error:
        problem = as_skyproof_error(error)
        if comm.rank == 0 or not problem.collective:
            _report(error, call)
        if comm.size > 1 and not problem.collective:
            _abort(problem.exit_code)
        return problem.exit_code
    return 0


def _run_serial(call: Call) -> None:
    """Run a stage on this rank; convert errors to SkyproofError, which all ranks can raise."""
    try:
        _run(call, SerialComm())
    except SkyproofError:
        raise
    except Exception as error:
        raise as_skyproof_error(error) from error


def _run(call: Call, comm: Comm) -> None:
    started = datetime.now(UTC)
    on_first_rank(comm, lambda: _check_inputs(call))
    inputs = on_first_rank(comm, lambda: input_identities(call))
    first, key = call.first_output(), cache_key(call, inputs)
    on_first_rank(comm, lambda: no_retry.raise_again(first, key))
    temporary = on_first_rank(comm, lambda: _prepare_outputs(call))
    finals = {
        temp: final for name, temps in temporary.items()
        for temp, final in zip(temps, call.outputs[name], strict=True)
    }  # fmt: skip
    context = Context(
        stage=call.stage,
        seed=getattr(call.options, "seed", None),
        comm=comm,
        threads=threads_of(call.options.numerics, call.threads),
        device=call.device,
        cache_key=key,
        finals=finals,
    )
    declared = type(call.options)
    module = importlib.import_module(f"skyproof.{call.stage}")
    try:
        with naming(first.parent):
            module.run(
                _namespace(declared.inputs, call.inputs),
                _namespace(declared.outputs, temporary),
                call.options,
                context,
            )
        comm.barrier()
        on_first_rank(comm, lambda: _check_outputs(call, finals))
        notes, log = context.notes, context.log
        on_first_rank(comm, lambda: receipts.write(call, finals, inputs, started, notes, log))
        on_first_rank(comm, lambda: _commit(finals))
    except InputError as error:
        no_retry.note(first, key, error)
        raise
    finally:
        if comm.rank == 0:
            for path in finals:
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _check_inputs(call: Call) -> None:
    for name, paths in call.inputs.items():
        for path in paths:
            if not path.exists():
                raise InputError(path, "does not exist", field=f"input {name}")


def _prepare_outputs(call: Call) -> dict[str, list[Path]]:
    temporary = {}
    for name, paths in call.outputs.items():
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.remove_leftovers(path)
        temporary[name] = [atomic.temporary_name(path) for path in paths]
    return temporary


def _namespace(declared: Mapping[str, File], given: Mapping[str, list[Path]]) -> SimpleNamespace:
    values: dict[str, Any] = {}
    for name, form in declared.items():
        paths = given.get(name, [])
        values[name] = paths if form.many else (paths[0] if paths else None)
    return SimpleNamespace(**values)


def _check_outputs(call: Call, finals: Mapping[Path, Path]) -> None:
    for temporary, final in finals.items():
        if not temporary.is_file():
            raise SkyproofError(f"{call.stage} did not write its output {final}")


def _commit(finals: Mapping[Path, Path]) -> None:
    for temporary, final in finals.items():
        atomic.move_into_place(temporary, final)


def _report(error: Exception, call: Call) -> int:
    return report(error, f"skyproof {call.stage}", debug=call.debug)


def _abort(code: int) -> None:
    """End all ranks of the world; the others may be waiting for this one."""
    from mpi4py import MPI

    # The launcher forwards the output of a rank. After an abort it discards output that it has not
    # read, and the error message was sometimes lost.
    time.sleep(_FLUSH_S)
    MPI.COMM_WORLD.Abort(code)
