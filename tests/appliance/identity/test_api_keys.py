"""The form of a key."""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import secrets
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.identity.api_keys import (
    KEY_LIKE,
    MAX_KEY_CHARS,
    MalformedKey,
    ParsedKey,
    Pepper,
    mint,
    parse,
    secret_digest,
)

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def number(text: str) -> int:
    """Read base62, written apart from the code under test."""
    value = 0
    for character in text:
        value = value * 62 + ALPHABET.index(character)
    return value


@settings(max_examples=200, deadline=None)
@given(entropy=st.binary(min_size=40, max_size=40), env=st.from_regex(r"\A[a-z][a-z0-9]{0,11}\Z"))
def test_a_minted_key_has_the_documented_form_and_parses(entropy, env):
    """`cls_<env>_<id 11>_<secret 43><crc 6>`; nothing of the 256 bits is lost."""
    source = iter([entropy[:8], entropy[8:]])
    key = mint(env, lambda size: next(part for part in source if len(part) == size))
    assert re.fullmatch(rf"cls_{env}_[0-9A-Za-z]{{11}}_[0-9A-Za-z]{{49}}", key.unsafe_text)
    assert number(key.secret.decode()) == int.from_bytes(entropy[8:])
    assert number(key.key_id) == int.from_bytes(entropy[:8])
    assert number(key.unsafe_text[-6:]) == zlib.crc32(key.unsafe_text[:-6].encode())
    assert parse(key.unsafe_text.encode()) == ParsedKey(env, key.key_id, key.secret)
    assert len(key.unsafe_text) <= MAX_KEY_CHARS
    assert KEY_LIKE.search(b"x" + key.unsafe_text.encode())


def test_every_single_changed_character_is_malformed():
    """The checksum finds each substitution, at every place, before anything is asked."""
    text = mint("dev", random.Random(1).randbytes).unsafe_text
    for place in range(len(text)):
        for other in (ALPHABET + "_-. \n\0").replace(text[place], ""):
            changed = text[:place] + other + text[place + 1 :]
            assert parse(changed.encode()) == MalformedKey(), changed


def test_every_swap_cut_and_addition_is_malformed():
    """Also what a hurried copy does to a key."""
    text = mint("dev", random.Random(2).randbytes).unsafe_text
    variants = {text[:cut] for cut in range(len(text))} | {text[cut:] for cut in range(1, len(text))}
    variants |= {text + tail for tail in ("\n", " ", "0", "\0", "=")} | {head + text for head in (" ", "\n", "Bearer ")}
    variants |= {
        text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1) if text[i] != text[i + 1]
    }
    variants |= {text.upper(), text.lower(), text.swapcase(), text.replace("_", "-"), text * 2}
    assert all(parse(variant.encode()) == MalformedKey() for variant in variants)


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.binary(max_size=200), st.from_regex(r"\Acls_[a-z]{3}_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}\Z").map(str.encode)
    )
)
def test_parsing_is_total(text):
    """Any bytes are a key or are malformed."""
    assert isinstance(parse(text), ParsedKey | MalformedKey)


def test_a_digit_of_another_script_is_no_digit():
    """Only ASCII is base62."""
    text = mint("dev", random.Random(3).randbytes).unsafe_text
    assert parse(text.replace(text[-1], "\u0663").encode()) == MalformedKey()


@pytest.mark.parametrize("env", ["", "Dev", "de v", "dev_", "a" * 13, "1dev", "d\u00e9v", "dev\n"])
def test_an_env_that_would_not_parse_is_never_minted(env):
    """What mint makes, parse takes."""
    with pytest.raises(ValueError, match="env"):
        mint(env, secrets.token_bytes)


def test_the_digest_is_hmac_sha256_under_the_pepper():
    """FIPS-approved, and checked against the definition."""
    pepper = Pepper(b"k" * 64)
    assert secret_digest(pepper, b"s") == hmac.new(b"k" * 64, b"s", hashlib.sha256).digest()
    assert secret_digest(Pepper(b"j" * 64), b"s") != secret_digest(pepper, b"s")


def test_a_pepper_is_long_and_named_by_what_tells_nothing():
    """Two peppers have two names; a short one is refused."""
    assert Pepper(b"a" * 32).id != Pepper(b"b" * 32).id
    assert re.fullmatch(r"[0-9a-f]{16}", Pepper(b"a" * 32).id)
    with pytest.raises(ValueError, match="32 bytes"):
        Pepper(b"a" * 31)


def test_no_repr_shows_a_secret():
    """Not the key, not its secret, not the pepper: a traceback or a log line gives nothing away."""
    key = mint("dev", random.Random(4).randbytes)
    parsed = parse(key.unsafe_text.encode())
    pepper = Pepper(b"canary-canary-canary-canary-pepper")
    for shown in (repr(key), str(key), f"{key}", repr(parsed), repr([key, parsed]), repr(pepper)):
        assert key.secret.decode() not in shown
        assert key.unsafe_text[-6:] not in shown
        assert "canary" not in shown
    assert key.key_id in repr(key)
