"""The sum over the items of some records."""

import numpy as np

from skyproof.core import products, records
from skyproof.core.errors import InputError


def run(inputs, outputs, options, context):
    if context.comm.rank != 0:
        return
    items = list(records.read_records(inputs.records))
    total = sum(float(np.load(item.paths[0]).sum()) for item in items)
    products.write_json(outputs.total, {"total": total, "n": len(items)})
    if options.fail == "input":
        raise InputError("sky.fits", "holds no sky")
    if options.fail == "fault":
        raise ZeroDivisionError("oops")
    if options.fail != "forget":
        products.write_npy(outputs.copy, np.array([total]))
