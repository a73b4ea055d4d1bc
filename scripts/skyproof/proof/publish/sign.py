"""Sign the root with the user's Ed25519 key, and check such a signature.

Checksums reveal damage. Forgery is revealed only by something that a forger cannot make: the root
digest published elsewhere, or a signature of it. Make a key pair by

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out public.pem
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skyproof.core import atomic
from skyproof.core.errors import InputError
from skyproof.proof.manifest import SIGNATURE, CannotVerify


def sign(folder: Path, root: str, key_file: Path) -> Path:
    """Sign the root with a private key (PEM, not encrypted); return the path of the signature."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _load(key_file, lambda data: load_pem_private_key(data, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(key_file, "is another kind of key", expected="an Ed25519 private key")
    path = folder / SIGNATURE
    with atomic.replacing(path) as temporary:
        temporary.write_text(key.sign(_message(root)).hex() + "\n", encoding="ascii")
    return path


def is_signed(folder: Path, root: str, key_file: Path) -> bool:
    """Return whether the folder's signature of `root` is valid for a public key (PEM).

    Raises CannotVerify where the signature cannot be read, InputError for a wrong key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _load(key_file, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(key_file, "is another kind of key", expected="an Ed25519 public key")
    try:
        signature = bytes.fromhex((folder / SIGNATURE).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise CannotVerify(f"{folder / SIGNATURE}: cannot be read: {error}") from None
    try:
        key.verify(signature, _message(root))
    except InvalidSignature:
        return False
    return True


def _message(root: str) -> bytes:
    """Return the signed message. Its prefix excludes signatures made for another purpose."""
    return f"skyproof root {root}\n".encode()


def _load(key_file: Path, load: Any) -> Any:
    try:
        return load(key_file.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise InputError(key_file, f"cannot be read: {error}", expected="a key in PEM") from None
