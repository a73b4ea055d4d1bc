"""Read and normalise files of the Singularity Image Format (SIF).

A file begins with a header of 128 bytes (a launch line of 32, magic, version, architecture,
identifier, two times, six numbers) with the position of descriptors of 585 bytes; each describes
one object: definition, labels, a partition with the file system, a signature. All numbers are
little-endian.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from skyproof.core.errors import EnvironmentProblem

_HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
_MAGIC = b"SIF_MAGIC\0"
_PARTITION = 0x4004
_SIGNATURE = 0x4005
_PRIMARY_SYSTEM = 2
_ARCHITECTURES = {b"01": "386", b"02": "x86_64", b"03": "arm", b"04": "aarch64", b"06": "ppc64le"}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SifObject:
    """One object of an image: its kind, its position in the file, its further properties."""

    kind: int
    offset: int  # bytes from the file's start
    size: int  # bytes
    extra: bytes

    @property
    def is_system(self) -> bool:
        """The partition with the root file system: (file system, kind of partition, ...)."""
        return self.kind == _PARTITION and struct.unpack_from("<ii", self.extra)[1] == (
            _PRIMARY_SYSTEM
        )


def architecture(path: Path) -> str:
    """Return the architecture of an image, as `uname -m` names it (EnvironmentProblem)."""
    with path.open("rb") as file:
        code = _read_header(file, path)[3][:2]
    return _ARCHITECTURES.get(code, code.decode("ascii", "replace"))


def is_signed(path: Path) -> bool:
    """Return whether an image holds a signature, valid or not (EnvironmentProblem)."""
    with path.open("rb") as file:
        return any(each.kind == _SIGNATURE for each in _objects(file, path))


def file_system_digest(path: Path) -> str:
    """Return the SHA-256 of an image's file system, which does not change by signing.

    Raises EnvironmentProblem where the file is not a complete image.
    """
    with path.open("rb") as file:
        system = [each for each in _objects(file, path) if each.is_system]
        if len(system) != 1:
            raise _damaged(path, f"holds {len(system)} root file systems")
        digest, left = hashlib.sha256(), system[0].size
        file.seek(system[0].offset)
        while left:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise _damaged(path, f"lacks its last {left} bytes")
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def normalise(path: Path) -> None:
    """Replace what differs from build to build in a new image: identifier, times, owner.

    The identifier becomes a digest of the file system, times and owner 0. Two builds from the same
    input are then the same file.
    """
    identifier = uuid.UUID(bytes=bytes.fromhex(file_system_digest(path))[:16], version=4).bytes
    with path.open("r+b") as file:
        header = list(_read_header(file, path))
        header[4:7] = [identifier, 0, 0]
        file.seek(0)
        file.write(_HEADER.pack(*header))
        for place in range(header[8]):
            position = header[9] + place * _DESCRIPTOR.size
            file.seek(position)
            fields = list(_DESCRIPTOR.unpack(file.read(_DESCRIPTOR.size)))
            fields[8:12] = [0, 0, 0, 0]
            file.seek(position)
            file.write(_DESCRIPTOR.pack(*fields))


def _read_header(file: BinaryIO, path: Path) -> tuple:
    data = file.read(_HEADER.size)
    if len(data) < _HEADER.size or (header := _HEADER.unpack(data))[1] != _MAGIC:
        raise _damaged(path, "is not an Apptainer image")
    return header


def _objects(file: BinaryIO, path: Path) -> Iterator[SifObject]:
    header = _read_header(file, path)
    file.seek(header[9])
    table = file.read(min(header[10], header[8] * _DESCRIPTOR.size))
    if len(table) != header[8] * _DESCRIPTOR.size:
        raise _damaged(path, "has an incomplete table of objects")
    for fields in _DESCRIPTOR.iter_unpack(table):
        if fields[1]:
            yield SifObject(fields[0], fields[5], fields[6], fields[13])


def _damaged(path: Path, problem: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{path}: {problem}; delete it and run `make images`")
