"""The sum over the items of some block indexes."""

import errno
import os

import numpy as np

from skyproof.core import blocks
from skyproof.core.errors import InputError
from skyproof.core.formats import write


def run(inputs, outputs, options, context):
    items = list(blocks.read_indexes(inputs.records))
    total = sum(float(np.load(item.paths[0]).sum()) for item in items)
    write.json(outputs.total, {"total": total, "n": len(items)})
    if options.fail == "input":
        raise InputError("sky.fits", "holds no sky")
    if options.fail == "fault":
        raise ZeroDivisionError("oops")
    if options.fail == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sky.fits")
    if options.fail != "forget":
        write.npy(outputs.copy, np.array([total]))
