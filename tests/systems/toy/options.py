"""Options of the toy stages."""

from skyproof.core.options import File, Section, SeededOptions, inherited, option, per_job


class Noise(SeededOptions):
    """Random numbers, a file per item."""

    outputs = {"record": File("block index of the items")}

    n_items: int = option(5, "number of items", ge=1)
    scale: float = option(1.0, "standard deviation", unit="mag", gt=0)
    flavour: str = inherited("plain", "a word")
    bad: list[str] = option([], "items that are bad input")
    skip_bad: bool = option(False, "list bad items and succeed")
    block_size: int = option(10**6, "items that one job makes", ge=1, affects_results=False)
    block: int = per_job(0, "which block of items this job makes", ge=0, affects_results=False)


class Total(SeededOptions):
    """The sum over the items of some block indexes."""

    inputs = {
        "records": File("block indexes of noise", many=True),
        "note": File("a text", optional=True),
    }
    outputs = {"total": File("the sum (.json)"), "copy": File("the sum again (.npy)")}
    parallel = False

    fail: str = option("", "how to fail: input, fault, forget, disk")


class System(Section):
    """Toy numbers."""

    flavour: str = option("plain", "a word")
    noise: Noise = Noise()
    total: Total = Total()
