"""Digest of the source that a stage runs, computed without importing it.

Snakemake runs a rule again when its parameters change, but not when a module that the stage imports
changes. Therefore a rule has this digest as a parameter: an edited line runs again the stages that
import it, the jobs that depend on them, and nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = "skyproof"
_ROOT = Path(__file__).parents[2]

# Where a package's name differs from that of its distribution.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}

_CHECKING = ("pydantic",)  # without effect on results


def code_digest(stage: str) -> str:
    """Return 16 hex digits of the SHA-256 over the sources in this package that a stage imports.

    `stage` is 'system.stage'; its own source is included.
    """
    digest = hashlib.sha256()
    for module in sorted(reachable(f"{PACKAGE}.{stage}")):
        source = _file_of(module)
        if source is not None:
            digest.update(module.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:16]


def package_digest() -> str:
    """Return 16 hex digits of the SHA-256 over all sources of the package."""
    digest = hashlib.sha256()
    for source in sorted((_ROOT / PACKAGE).rglob("*.py")):
        name = source.relative_to(_ROOT).as_posix()
        digest.update(name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:16]


def reachable(module: str) -> set[str]:
    """Return the modules of this package that `module` imports, directly or not, and itself.

    Imports under `if TYPE_CHECKING` do not count; imports inside functions do.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += _imports(name)
        waiting += [".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)]
    return seen


def library_versions(stage: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that 'system.stage' may import.

    The packages are found in the source, not among the loaded modules, because a resumed block
    imports fewer. Packages that are not installed and those that only check values are left out.
    Python's version is major.minor, as patch releases differ between images and other environments
    and do not change results. The receipt has the full version.
    """
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for module in reachable(f"{PACKAGE}.{stage}"):
        for name in _imported(module):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names | {PACKAGE, *_CHECKING}:
                distribution = _DISTRIBUTIONS.get(top, top)
                with suppress(metadata.PackageNotFoundError):
                    found[distribution] = metadata.version(distribution)
    return found


def _imports(module: str) -> tuple[str, ...]:
    return tuple(name for name in _imported(module) if _file_of(name) is not None)


@cache
def _imported(module: str) -> tuple[str, ...]:
    return tuple(
        found
        for name, parts in imports_of(module)
        for found in (name, *(f"{name}.{part}" for part in parts))
    )


@cache
def imports_of(module: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the imports of a module of this package: (module, the names taken from it).

    Imports under `if TYPE_CHECKING` do not execute and do not count; imports inside functions do.
    """
    source = _file_of(module)
    if source is None:
        return ()
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in _executed(ast.parse(source.read_bytes(), str(source))):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, tuple(alias.name for alias in node.names)))
    return tuple(found)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _executed(child)


@cache
def _file_of(module: str) -> Path | None:
    if module.split(".")[0] != PACKAGE:
        return None
    base = _ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
