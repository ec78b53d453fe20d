"""Commitments and sealed content: both can be used while the subject's key lives, and never after it is destroyed.

A subject without a living key gets one with its first commitment: that call writes and flushes it, later ones work from
memory.  Destroying forgets the key in memory first, then in the file; a person who comes back gets another key, but a
request that began under a key ends under that one or not at all (`key_id`).  The records of an erasure are the
caller's to write.

Never: a subject's name or a key in the clear passed to the file; two living keys for one subject; a call that works
from memory kept waiting for the file.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from audit.subject_keys.commitment import Commitment, content_hmac, content_marks
from audit.subject_keys.key_encryption import KeyEncryption, SubjectKey
from audit.subject_keys.key_file import KeyFile
from audit.subject_keys.sealing import NONCE_BYTES, Sealed, open_content, seal_content

_CACHE_LEN = 4_096


@dataclass(frozen=True, slots=True)
class KeysOfSubject:
    """Ids of every key that a subject ever had here."""

    living: tuple[str, ...]
    destroyed: tuple[str, ...]


class SubjectKeyring:
    """The subject keys under one key-encryption key; safe to use from several threads.

    A fault of the database is an `AuditError` that names the file: `AuditCorrupt` for damage or the wrong
    key-encryption key, `KeyringUnusable` for the machine's no.
    """

    def __init__(self, path: Path, key_encryption_key: bytes) -> None:
        self._file_lock = Lock()
        """Orders the file's one connection, and whatever adds to the cache or erases; taken before the other."""
        self._cache_lock = Lock()
        self._cache: OrderedDict[bytes, SubjectKey] = OrderedDict()
        """Living keys by mark, least recently used first; only under `_cache_lock`, which nobody holds for long."""
        self._file = KeyFile(path)
        try:
            self._encryption = KeyEncryption(key_encryption_key)
            self._encryption.require_own(*self._file.require_sound(), path)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def create(cls, path: Path, key_encryption_key: bytes) -> Self:
        """Make an empty keyring."""
        KeyFile.create(path, KeyEncryption(key_encryption_key).new_check_value())
        return cls(path, key_encryption_key)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Forget the keys in memory and let the file go."""
        with self._file_lock:
            with self._cache_lock:
                self._cache.clear()
            self._file.close()

    def commitment(
        self, subject_id: str, request_id: str, phase: str, content: bytes, *, key_id: str | None = None
    ) -> Commitment:
        """Commit to content under the subject's living key, or under exactly the one named.

        Raises:
            SubjectErased: the key named was destroyed; no other one is made in its place.
        """
        key = self._key_of(subject_id, key_id)
        return Commitment(key.key_id, content_hmac(key.key, request_id, phase, content))

    def marks(
        self, subject_id: str, request_id: str, phase: str, parts: Iterable[bytes], *, key_id: str | None = None
    ) -> bytes:
        """Return marks over growing parts of a content; which key, and what it raises, as `commitment` does."""
        return content_marks(self._key_of(subject_id, key_id).key, request_id, phase, parts)

    def seal(
        self, subject_id: str, request_id: str, phase: str, content: bytes, *, key_id: str | None = None
    ) -> Sealed:
        """Seal content for one request and phase; which key, and what it raises, as `commitment` does."""
        key = self._key_of(subject_id, key_id)
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(key.key_id, nonce, seal_content(key.key, request_id, phase, content, nonce))

    def prove_writable(self) -> None:
        """Prove that a subject without a key could have one now: a write that is flushed, and changes nothing."""
        with self._file_lock:
            self._file.require_writable()

    def check(self, commitment: Commitment, request_id: str, phase: str, content: bytes) -> bool:
        """Tell whether the commitment is to this content.

        Raises:
            SubjectErased: the key was destroyed; nobody can tell any more.
            KeyRefused: there was never such a key here.
        """
        key = self._by_id(commitment.key_id)
        return hmac.compare_digest(content_hmac(key.key, request_id, phase, content), commitment.hmac_hex)

    def marks_by(self, key_id: str, request_id: str, phase: str, parts: Iterable[bytes]) -> bytes:
        """Return the marks that a content would have under this key; raises as `check` does."""
        return content_marks(self._by_id(key_id).key, request_id, phase, parts)

    def unseal(self, sealed: Sealed, request_id: str, phase: str) -> bytes:
        """Return what was sealed.

        Raises:
            SubjectErased: the key was destroyed; nobody reads this any more.
            KeyRefused: there was never such a key here.
            AuditCorrupt: altered, or sealed for another request or phase.
        """
        return open_content(self._by_id(sealed.key_id).key, request_id, phase, sealed)

    def keys_of(self, subject_id: str) -> KeysOfSubject:
        """Return the ids of a subject's keys: what an erasure will destroy, and what earlier ones have."""
        with self._file_lock:
            living, destroyed = self._file.ids_of(self._encryption.mark(subject_id))
        return KeysOfSubject(living, destroyed)

    def living_among(self, key_ids: Collection[str]) -> tuple[str, ...]:
        """Return those of these ids whose keys live: after an erasure, none, unless an older file was put back."""
        with self._file_lock:
            return self._file.living_among(key_ids)

    def destroy(self, key_ids: Collection[str]) -> tuple[str, ...]:
        """Destroy these keys for good; return the ids of those that were still living.

        May be repeated: what was begun is finished, and an older copy of the file that was put back is cleaned again.

        Raises:
            KeyringUnusable, SettingRefused: a trace may be left; the keys are used no more, repeat it.
        """
        with self._file_lock:
            with self._cache_lock:
                for mark in [mark for mark, key in self._cache.items() if key.key_id in key_ids]:
                    del self._cache[mark]
            return self._file.destroy(key_ids)

    def _key_of(self, subject_id: str, key_id: str | None) -> SubjectKey:
        mark = self._encryption.mark(subject_id)
        key = self._remembered(mark)
        if key_id is not None and (key is None or key.key_id != key_id):
            return self._by_id(key_id)
        if key is None:
            with self._file_lock:
                key = self._remembered(mark) or self._stored(mark) or self._new_key(mark)
        return key

    def _by_id(self, key_id: str) -> SubjectKey:
        with self._file_lock:
            return self._encryption.unwrap(self._file.by_id(key_id), self._file.path)

    def _remembered(self, mark: bytes) -> SubjectKey | None:
        with self._cache_lock:
            cached = self._cache.get(mark)
            if cached is not None:
                self._cache.move_to_end(mark)
            return cached

    def _stored(self, mark: bytes) -> SubjectKey | None:
        stored = self._file.living(mark)
        return None if stored is None else self._remember(mark, self._encryption.unwrap(stored, self._file.path))

    def _new_key(self, mark: bytes) -> SubjectKey:
        key, wrapped = self._encryption.new_key()
        self._file.insert(mark, wrapped)
        return self._remember(mark, key)

    def _remember(self, mark: bytes, key: SubjectKey) -> SubjectKey:
        with self._cache_lock:
            self._cache[mark] = key
            if len(self._cache) > _CACHE_LEN:
                self._cache.popitem(last=False)
        return key
