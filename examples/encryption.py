#!/usr/bin/env python3
"""Decrypts and encrypts what Reveille stores, as docs/reference/encryption.md describes it. It needs PyNaCl.

The keys stand in REVEILLE_ENCRYPTION_KEYS. A value goes from standard input to standard output:

    psql "$DATABASE_URL" -Atc 'select payload from reveille.jobs where id = 7' |
        python3 examples/encryption.py open send_welcome payload
    echo '{"user_id": 8}' | python3 examples/encryption.py seal send_welcome payload |
        reveille edit 7 --payload -
"""

import json
import os
import sys
from base64 import b64decode, b64encode

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt


def read_keys(text):
    """Returns the keys by their ids. The first key encrypts."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    pairs = [key.split(":", 1) for line in lines for key in line.split()]
    return {key_id: b64decode(key, validate=True) for key_id, key in pairs}


def associated_data(kind, field):
    return b"\0".join([b"reveille-encryption-1", field.encode(), kind.encode()])


def open_value(keys, kind, field, envelope):
    """Returns the plain text of an envelope."""
    if (envelope["reveille_encrypted"], envelope["algorithm"]) != (1, "XChaCha20-Poly1305"):
        raise ValueError("encrypted in an unknown form")
    nonce = b64decode(envelope["nonce"], validate=True)
    ciphertext = b64decode(envelope["ciphertext"], validate=True)
    return decrypt(ciphertext, associated_data(kind, field), nonce, keys[envelope["key"]]).decode()


def seal_value(keys, kind, field, plain):
    """Returns the envelope of a plain text."""
    key_id, key = next(iter(keys.items()))
    nonce = os.urandom(24)
    ciphertext = encrypt(plain.encode(), associated_data(kind, field), nonce, key)
    return {
        "reveille_encrypted": 1,
        "algorithm": "XChaCha20-Poly1305",
        "key": key_id,
        "nonce": b64encode(nonce).decode(),
        "ciphertext": b64encode(ciphertext).decode(),
    }


def main():
    what, kind, field = sys.argv[1:]
    keys = read_keys(os.environ["REVEILLE_ENCRYPTION_KEYS"])
    value = sys.stdin.read().removesuffix("\n")
    if what == "open":
        print(open_value(keys, kind, field, json.loads(value)))
    elif what == "seal":
        print(json.dumps(seal_value(keys, kind, field, value)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
