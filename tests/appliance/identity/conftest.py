"""A key database on disk, a pepper, and a minter with a seeded source."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from identity_keys import NOW_US, PEPPER, make_record

from appliance.identity.api_keys import MintedKey, mint
from appliance.identity.authenticate import Authenticator
from appliance.identity.key_record import KeyRecord
from appliance.identity.key_store import KeyStore


@pytest.fixture
def key_path(tmp_path) -> Path:
    """Where the database stands."""
    return tmp_path / "keys.db"


@pytest.fixture
def store(key_path) -> Iterator[KeyStore]:
    """An empty database."""
    store = KeyStore.create(key_path)
    yield store
    store.close()


@pytest.fixture
def minted(store) -> Callable[..., MintedKey]:
    """Mint a key and keep its record, with the given fields of the record replaced."""
    source = random.Random(7)

    def make(**changes) -> MintedKey:
        key = mint("dev", source.randbytes)
        store.add(make_record(key, **changes))
        return key

    return make


@dataclass
class Desk:
    """An authenticator as a request meets it."""

    authenticator: Authenticator
    uses: list[tuple[KeyRecord, int]]
    """Told of each proven key, and the day."""

    def __call__(self, *headers, query=b"", now_us=NOW_US):
        """Authenticate a head."""
        return self.authenticator.authenticate(headers, query, now_us)


@pytest.fixture
def desk(store) -> Desk:
    """Over the empty database."""
    uses: list[tuple[KeyRecord, int]] = []
    return Desk(Authenticator(store, [PEPPER], lambda record, day: uses.append((record, day))), uses)


@pytest.fixture
def reopened(key_path):
    """Open the file again, as the next start does."""
    opened = []

    def reopen() -> KeyStore:
        opened.append(KeyStore.open(key_path))
        return opened[-1]

    yield reopen
    for store in opened:
        store.close()


@pytest.fixture
def random_record():
    """A record with a fresh id."""

    def make(**changes):
        return make_record(mint("dev", os.urandom), **changes)

    return make
