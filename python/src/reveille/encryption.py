"""Encryption of payloads, results, progress and errors, in the form that the Rust middleware and the worker store.

It needs PyNaCl: `pip install 'reveille-queue[encryption]'`. Jobs of a task with the option `encrypted` are encrypted
when they are enqueued, and the worker decrypts them for its tasks. What it stores in turn is read so:

    keys = reveille.encryption.Keys.parse(os.environ["REVEILLE_ENCRYPTION_KEYS"])
    keys.decrypt("send_welcome", "result", row[0])

On the command line, `python -m reveille.encryption decrypt KIND FIELD` takes a stored value from standard input, and
`encrypt` a value in plain text.
"""

from __future__ import annotations

import json
import os
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Literal, get_args

from . import json_text
from .new_job import NewJob
from .variables import KEYS, KEYS_FILE

try:
    from nacl.bindings import (
        crypto_aead_xchacha20poly1305_ietf_decrypt as _decrypt,
        crypto_aead_xchacha20poly1305_ietf_encrypt as _encrypt,
    )
    from nacl.exceptions import CryptoError
except ImportError as error:
    raise ImportError("encryption needs PyNaCl: pip install 'reveille-queue[encryption]'") from error

__all__ = ["CannotDecrypt", "Field", "Keys", "MissingKeys", "is_encrypted", "use"]

Field = Literal["payload", "result", "progress", "error"]

_VERSION = 1
_ALGORITHM = "XChaCha20-Poly1305"
_LABEL = b"reveille-encryption-1"
_KEY_BYTES = 32
_NONCE_BYTES = 24
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class CannotDecrypt(ValueError):
    """A stored value that is not encrypted, or that these keys do not decrypt. The error shows none of it."""


class MissingKeys(ValueError):
    """A job must be encrypted, and this program has no keys. Nothing was sent, so the transaction stays usable."""


class Keys:
    """Encryption keys. The first one encrypts, and all of them decrypt. No text of this class shows a key."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Takes keys of 32 random bytes by their ids. Raises `ValueError` if there is none, or if one is no key."""
        if not keys:
            raise ValueError("encryption needs at least one key, written as id:key")
        for id, key in keys.items():
            # The error does not show the id: it is the key, if someone has written `key:id`.
            if not _ID.fullmatch(id):
                raise ValueError(
                    "the id of an encryption key has 1 to 64 letters, digits, dots, hyphens and underscores"
                )
            if len(key) != _KEY_BYTES:
                raise ValueError(f"the encryption key {id!r} must have {_KEY_BYTES} bytes")
        self._keys = dict(keys)

    @classmethod
    def parse(cls, text: str) -> Keys:
        """Reads keys from a text, such as the value of an environment variable or a file.

        Each key is written as `id:key`, with 32 bytes in base64. Blanks or ends of lines stand between keys. A line
        that begins with `#` is a comment. Raises `ValueError`, which shows no part of a key.
        """
        lines = (line for line in text.split("\n") if not line.lstrip().startswith("#"))
        keys: dict[str, bytes] = {}
        for place, part in enumerate((part for line in lines for part in line.split()), 1):
            id, colon, encoded = part.partition(":")
            if not colon:
                raise ValueError(f"encryption key {place} must be written as id:key")
            if (key := _base64(encoded)) is None or len(key) != _KEY_BYTES:
                raise ValueError(
                    f"encryption key {place} must have {_KEY_BYTES} bytes in base64 behind its colon; "
                    f"make them by `openssl rand -base64 {_KEY_BYTES}`"
                )
            if id in keys:
                raise ValueError(f"encryption key {place} has the id of an earlier one; give each its own id")
            keys[id] = key
        return cls(keys)

    def encrypt(self, kind: str, field: Field, value: Any) -> Any:
        """Encrypts a value for a field of a job of this kind. Returns what is stored.

        That is an object of JSON, in which the JSON of the value is encrypted; for an error it is a text. Raises
        `ValueError` for a value that is not JSON that Postgres can store.
        """
        is_error = _check(field) == "error"
        if is_error and not isinstance(value, str):
            raise ValueError("the error must be a text")
        plain = value if is_error else json_text.encode(value, f"the {field}")
        envelope = self._seal(kind, field, plain.encode(), os.urandom(_NONCE_BYTES))
        # With the line break, all errors of a key have the same first line, by which dead jobs are grouped.
        text = json.dumps(envelope, separators=(",", ":")).replace(',"nonce"', ',\n"nonce"', 1)
        return text if is_error else envelope

    def decrypt(self, kind: str, field: Field, stored: Any) -> Any:
        """Decrypts a stored value of a field of a job of this kind: an object, or its JSON as a text.

        An error that is plain text is returned unchanged, since the worker writes some of its own.

        Raises `CannotDecrypt` if the key is missing, if the value was changed or belongs to another kind or field, or
        if it is not encrypted.
        """
        envelope = _envelope(stored)
        if envelope is None:
            if _check(field) == "error" and isinstance(stored, str):
                return stored
            raise CannotDecrypt(f"the {field} is not encrypted")
        plain = self._open(kind, _check(field), envelope).decode(errors="replace")
        try:
            return plain if field == "error" else json.loads(plain)
        except ValueError:
            raise CannotDecrypt(f"the {field} was encrypted, but is not JSON") from None

    def __repr__(self) -> str:
        return f"Keys({', '.join(self._keys)})"

    def _seal(self, kind: str, field: Field, plain: bytes, nonce: bytes) -> dict[str, Any]:
        id, key = next(iter(self._keys.items()))
        return {
            "reveille_encrypted": _VERSION,
            "algorithm": _ALGORITHM,
            "key": id,
            "nonce": b64encode(nonce).decode(),
            "ciphertext": b64encode(_encrypt(plain, _associated_data(kind, field), nonce, key)).decode(),
        }

    def _open(self, kind: str, field: Field, envelope: Mapping[str, Any]) -> bytes:
        version, algorithm, id = (envelope.get(name) for name in ("reveille_encrypted", "algorithm", "key"))
        if version != _VERSION or algorithm != _ALGORITHM:
            raise CannotDecrypt(
                f"the {field} is encrypted in a form that this program does not know: version {version}, "
                f"algorithm {algorithm!r}"
            )
        key = self._keys.get(id) if isinstance(id, str) else None
        if key is None:
            raise CannotDecrypt(f"the {field} is encrypted with the key {id!r}, which this program lacks")
        nonce, ciphertext = _base64(envelope.get("nonce")), _base64(envelope.get("ciphertext"))
        try:
            if nonce is None or len(nonce) != _NONCE_BYTES or ciphertext is None:
                raise CryptoError
            return _decrypt(ciphertext, _associated_data(kind, field), nonce, key)
        except (CryptoError, ValueError):
            raise CannotDecrypt(
                f"the {field} cannot be decrypted with the key {id!r}: either this program has another key of that id, "
                f"or the {field} was changed, or comes from another kind or field"
            ) from None


_chosen: list[Keys] = []


def use(keys: Keys | None) -> None:
    """Makes this program encrypt with these keys; with `None`, with those of the environment again."""
    _chosen[:] = [] if keys is None else [keys]


def keys_of_program(path: str | None = None) -> Keys:
    """Returns the keys given to `use`, or those of the environment: in the variable or in a file, as the worker does.

    Raises `MissingKeys` if there are none, and `ValueError` if they cannot be read.
    """
    if _chosen:
        return _chosen[-1]
    text, path = os.environ.get(KEYS, ""), path or os.environ.get(KEYS_FILE)
    if path:
        if text:
            raise ValueError(f"the encryption keys come from a file or from {KEYS}, not from both")
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise ValueError(f"cannot read the encryption keys in {path}: {error.strerror}") from error
    if not text:
        raise MissingKeys(f"there are no encryption keys: set {KEYS}, or call reveille.encryption.use")
    return Keys.parse(text)


def is_encrypted(stored: object) -> bool:
    """Returns true if a stored value is encrypted, whether or not these keys decrypt it."""
    return _envelope(stored) is not None


def sealed(job: NewJob) -> NewJob:
    """Returns a job with its payload encrypted. Raises `MissingKeys`, or `InvalidJob` if it is too large then."""
    options = job.options.copy()
    options.pop("encrypted", None)
    payload = keys_of_program().encrypt(job.kind, "payload", job.payload)
    return NewJob.of(job.kind, payload, **options)


def _check(field: Field) -> Field:
    if field not in get_args(Field):
        raise ValueError(f"the field must be one of {', '.join(get_args(Field))}, not {field!r}")
    return field


def _envelope(stored: object) -> Mapping[str, Any] | None:
    """Returns what a stored value holds if it is encrypted, in whatever version."""
    if isinstance(stored, (str, bytes)):
        try:
            stored = json.loads(stored)
        except (ValueError, RecursionError):
            return None
    if isinstance(stored, Mapping) and type(stored.get("reveille_encrypted")) is int:
        return stored
    return None


def _base64(text: object) -> bytes | None:
    """Decodes base64 of the standard alphabet, with padding. Returns `None` for any other text."""
    try:
        decoded = b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None
    # The module ignores bits that do not count; then two texts would stand for the same bytes.
    return decoded if decoded is not None and b64encode(decoded).decode() == text else None


def _associated_data(kind: str, field: Field) -> bytes:
    return b"\0".join([_LABEL, field.encode(), kind.encode()])


def main(arguments: list[str]) -> int:
    """Encrypts or decrypts a value from standard input. Returns the exit status."""
    match arguments:
        case ["encrypt" | "decrypt" as what, kind, "payload" | "result" | "progress" | "error" as field]:
            pass
        case _:
            usage = "usage: python -m reveille.encryption decrypt|encrypt KIND payload|result|progress|error <VALUE"
            print(usage, file=sys.stderr)
            return 2
    value = sys.stdin.read().removesuffix("\n")
    try:
        keys = keys_of_program()
        if what == "decrypt":
            value = keys.decrypt(kind, field, value)
        else:
            value = keys.encrypt(kind, field, value if field == "error" else json.loads(value))
    except ValueError as error:
        print(f"reveille: {error}", file=sys.stderr)
        return 1
    print(value if field == "error" else json.dumps(value, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
