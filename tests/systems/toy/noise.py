"""Random numbers, a file per item."""

import os
import signal

from skyproof.core.errors import InputError
from skyproof.core.formats import write


def run(inputs, outputs, options, context):
    def make(item, files):
        if item == os.environ.get("TOY_STOP_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        if item == os.environ.get("TOY_FAULT_AT"):
            raise ZeroDivisionError("oops")
        if item in options.bad:
            raise InputError(f"{item}.txt", "is broken", field="x", expected="a number")
        numbers = context.stream(item).normal(0, options.scale, 4)
        with files.write(f"items/{item}.npy") as path:
            write.npy(path, numbers)
        if os.environ.get("TOY_EXTRA"):
            with files.write(f"items/{item}-extra.npy") as path:
                write.npy(path, numbers)
        return {"first": float(numbers[0])}

    first = options.block * options.block_size
    numbers = range(first, min(first + options.block_size, options.n_items))
    items = [f"item{number}" for number in numbers]
    context.each(items, make, outputs.record, skip_bad=options.skip_bad)
