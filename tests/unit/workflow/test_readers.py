"""Only `core/formats` opens product files.

The rule for every other module: a library may be imported only if it is listed here, because it
computes and its functions that read or write files are not used. A library that is not listed is
wrong, whatever it does, and so is a new room. `core`, `proof`, `workflow` and `containers` read and
write the project's metadata (receipts, block indexes, configuration, lock files, archives of
images) with the standard library and the libraries of METADATA. The systems, `sky`, `learn` and
`assess` read no file by themselves.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "scripts/skyproof"
METADATA_ROOMS = {"__main__.py", "__init__.py", "core", "proof", "workflow", "containers"}

COMPUTING = {
    *("numpy", "numba", "torch", "healpy", "galsim", "sep", "reproject", "matplotlib"),
    *("sklearn", "mpi4py", "tqdm", "pydantic", "astropy.wcs", "astropy.stats"),
    *("scipy", "scipy.interpolate", "scipy.ndimage", "scipy.optimize", "scipy.signal"),
    *("scipy.sparse", "scipy.spatial", "scipy.stats"),
}
WHOLE = COMPUTING - {"scipy"}  # with their submodules; `from scipy import io` is scipy.io
METADATA = {
    *("yaml", "annotated_types", "bagit", "rocrate", "cryptography", "spython", "snakemake"),
    *("snakemake_interface_common", "snakemake_interface_executor_plugins"),
    "snakemake_executor_plugin_slurm",
}
# Modules of the standard library that open files of a format.
FORMATS = {
    *("csv", "pickle", "marshal", "shelve", "dbm", "sqlite3", "zipfile", "gzip", "bz2", "lzma"),
    *("tarfile", "xml", "configparser", "plistlib", "tomllib", "mmap", "array"),
}
UNSAFE = {"pickle", "marshal", "shelve"}  # these execute what a file says
# Beginnings of words in the names of functions that read or write files.
ACCESS = (
    "open|load|read|imread|imsave|save|dump(?!s)|write|genfrom|fromfile|fromregex|memmap|tofile"
)
METHODS = {"open", "read_text", "read_bytes", "tofile", "savefig"}  # of paths, arrays, figures


def file_accesses(source: str, *, metadata: bool) -> set[str]:
    """Return the libraries and functions by which a module may open files against the rule."""
    tree = ast.parse(source)
    names: dict[str, str] = {}  # of the module -> what they stand for
    found = set()
    for module, parts, alias in imports_of(tree):
        names |= {bound: f"{module}.{part}" for part, bound in parts.items()}
        if not parts:
            names[alias or module.split(".")[0]] = module if alias else module.split(".")[0]
        whole = [module, *(f"{module}.{part}" for part in parts if module == "scipy")]
        found |= {name for name in whole if not is_allowed(name, metadata=metadata)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "open" and not metadata:
            found.add("open")
        if not isinstance(node, (ast.Name, ast.Attribute)):
            continue
        name = dotted(node, names)
        if name is None:
            if isinstance(node, ast.Attribute) and node.attr in METHODS and not metadata:
                found.add(f".{node.attr}")
        elif is_access(name) and not (metadata and is_metadata(name)):
            found.add(name)
    return found


def imports_of(tree: ast.Module) -> Iterator[tuple[str, dict[str, str], str | None]]:
    """Yield (module, {name: name here}, alias) of imports, except those for type checks only."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from ((alias.name, {}, alias.asname) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module, {a.name: a.asname or a.name for a in node.names}, None
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value, {}, "_"


def is_allowed(module: str, *, metadata: bool) -> bool:
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return top not in (UNSAFE if metadata else FORMATS)
    if top in {"skyproof"} | (METADATA if metadata else set()):
        return True
    return module in COMPUTING or any(module.startswith(f"{name}.") for name in WHOLE)


def is_metadata(name: str) -> bool:
    top = name.split(".")[0]
    return top in sys.stdlib_module_names or top in METADATA


def is_access(name: str) -> bool:
    """Return whether a function of a library, not of this package, reads or writes files."""
    top, _, rest = name.partition(".")
    last = rest.rpartition(".")[2].lower()
    words = [*last.split("_"), last.replace("_", "")]
    return top not in ("skyproof", "typing") and any(re.match(ACCESS, word) for word in words)


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """Return what a name or attribute stands for, if it begins with an imported name."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, names)):
        return f"{base}.{node.attr}"
    return None


def sources() -> list[Path]:
    formats = PACKAGE / "core/formats"
    return sorted(path for path in PACKAGE.rglob("*.py") if formats not in path.parents)


def test_only_formats_opens_product_files():
    found = {
        (path.relative_to(PACKAGE).as_posix(), access)
        for path in sources()
        for access in file_accesses(
            path.read_text(), metadata=path.relative_to(PACKAGE).parts[0] in METADATA_ROOMS
        )
    }
    assert found == set()


@pytest.mark.parametrize(
    ("source", "accesses"),
    [
        ("import h5py", {"h5py"}),
        ("def f():\n    import fitsio as x\n    x.read('a')", {"fitsio", "fitsio.read"}),
        ("from astropy.io import fits", {"astropy.io"}),
        ("from astropy.wcs import WCS", set()),
        ("import zarr", {"zarr"}),
        ("import importlib\nimportlib.import_module('asdf')", {"asdf"}),
        ("from scipy import io", {"scipy.io"}),
        ("from scipy import stats", set()),
        ("import numpy as np\nnp.load('a')", {"numpy.load"}),
        ("from numpy import genfromtxt as g\ng('a')", {"numpy.genfromtxt"}),
        ("import numpy as np\nf = np.lib.format.open_memmap", {"numpy.lib.format.open_memmap"}),
        ("import torch\ntorch.load('a')", {"torch.load"}),
        ("import torch\ntorch.from_file('a')", {"torch.from_file"}),
        ("import healpy\nhealpy.read_map('a')", {"healpy.read_map"}),
        ("import json\njson.loads(path.read_text())", {"json.loads", ".read_text"}),
        ("import json\njson.dumps({})", set()),
        ("with open('a') as f: pass", {"open"}),
        ("import csv", {"csv"}),
        ("import numpy as np\nnp.frombuffer(np.zeros(3))", set()),
        ("import torch\ntorch.set_num_threads(1)", set()),
        ("from skyproof.core.formats import read\nread.npy('a')", set()),
        ("if TYPE_CHECKING:\n    import h5py", set()),
    ],
)
def test_what_opens_files_is_found(source: str, accesses: set[str]):
    assert file_accesses(source, metadata=False) == accesses


@pytest.mark.parametrize(
    ("source", "accesses"),
    [
        ("import json\njson.loads(path.read_text())", set()),
        ("import csv, tarfile, yaml\nyaml.safe_load('a')\ntarfile.open('a')", set()),
        ("import numpy as np\nnp.load('a')", {"numpy.load"}),
        ("import pandas", {"pandas"}),
        ("import pickle", {"pickle"}),
    ],
)
def test_what_reads_metadata_is_told_from_what_reads_products(source: str, accesses: set[str]):
    assert file_accesses(source, metadata=True) == accesses
