"""The API key: its form, its making, and the digest that stands for its secret.

    cls_<env>_<id 11>_<secret 43><checksum 6>        base62, all ASCII

The id is public and names the record; the secret has 256 bits.  The checksum (CRC-32 of everything before it) and one
strict pattern tell a mistyped or invented key apart before any database is asked; they prove nothing about identity.
The record keeps HMAC-SHA256(pepper, secret).  A slow hash would add nothing to 2^256 guesses and would let any
stranger burn our processor; the pepper, kept outside the database, makes a stolen table useless.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_BYTES: Final = 8
_ID_CHARS: Final = 11
_SECRET_BYTES: Final = 32
_SECRET_CHARS: Final = 43
_CHECKSUM_CHARS: Final = 6
_PEPPER_MIN_BYTES: Final = 32

MAX_KEY_CHARS: Final = 4 + 12 + 1 + _ID_CHARS + 1 + _SECRET_CHARS + _CHECKSUM_CHARS
_ENV: Final = re.compile(r"[a-z][a-z0-9]{0,11}", re.ASCII)
_KEY: Final = re.compile(
    rb"(?P<body>cls_(?P<env>[a-z][a-z0-9]{0,11})_(?P<id>[0-9A-Za-z]{11})_(?P<secret>[0-9A-Za-z]{43}))"
    rb"(?P<checksum>[0-9A-Za-z]{6})"
)
KEY_LIKE: Final = re.compile(rb"cls_[a-z][a-z0-9]{0,11}_[0-9A-Za-z]{11}_[0-9A-Za-z]{8}")
"""Enough of a key to treat a text as one: for places where no key may stand."""

KEY_ID: Final = re.compile(r"[0-9A-Za-z]{11}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key, shown to its owner once and never stored."""

    env: str
    key_id: str
    unsafe_text: str = field(repr=False)
    """The whole key.  Print it once; never log it."""
    secret: bytes = field(repr=False)
    """What the record's digest is made of."""


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A text of the right form and checksum; nothing is proven yet."""

    env: str
    key_id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MalformedKey:
    """A text that no minting of ours ever produced."""


@dataclass(frozen=True, slots=True)
class Pepper:
    """The key of the HMAC; lives in its own file, outside the database."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) < _PEPPER_MIN_BYTES:
            raise ValueError(f"a pepper has at least {_PEPPER_MIN_BYTES} bytes, this one {len(self.key)}")

    @property
    def id(self) -> str:
        """Names the pepper in a record without telling anything about it; 16 hexadecimal digits."""
        return hmac.digest(self.key, b"cloister pepper id", "sha256").hex()[:16]


def mint(env: str, random_bytes: Callable[[int], bytes]) -> MintedKey:
    """Make a key.

    Args:
        env: what the key is for, e.g. `dev`: 1 to 12 of a-z and 0-9, beginning with a letter.
        random_bytes: `secrets.token_bytes`, or a seeded source in a test.
    """
    if not _ENV.fullmatch(env):
        raise ValueError(f"env {env!a} is not 1 to 12 of a-z and 0-9, beginning with a letter")
    key_id = _base62(int.from_bytes(random_bytes(_ID_BYTES)), _ID_CHARS)
    secret = _base62(int.from_bytes(random_bytes(_SECRET_BYTES)), _SECRET_CHARS)
    body = f"cls_{env}_{key_id}_{secret}"
    return MintedKey(env, key_id, body + _checksum(body.encode()), secret.encode())


def parse(text: bytes) -> ParsedKey | MalformedKey:
    """Take a presented key apart; total, and touches nothing but its argument."""
    found = _KEY.fullmatch(text)
    if found is None or found["checksum"] != _checksum(found["body"]).encode():
        return MalformedKey()
    return ParsedKey(found["env"].decode(), found["id"].decode(), found["secret"])


def secret_digest(pepper: Pepper, secret: bytes) -> bytes:
    """What the record keeps of a secret: HMAC-SHA256 under the pepper, 32 bytes."""
    return hmac.digest(pepper.key, secret, hashlib.sha256)


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CHECKSUM_CHARS)


def _base62(number: int, num_chars: int) -> str:
    digits = []
    for _ in range(num_chars):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    assert number == 0, f"{number} left over after {num_chars} base62 digits"
    return "".join(reversed(digits))
