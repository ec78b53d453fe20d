"""Read the log: entries, proofs, checkpoints.

Own connections, read-only by the database's own word (`mode=ro`, `query_only`).  Each call reads one consistent state.
Entries come from their bytes, never from the columns that found them; bytes that do not have their stored hash are
refused with `AuditCorrupt` rather than shown.  Recording *that* someone read is the caller's duty.

Whoever masters the database can exchange a leaf together with its hash.  What reads to show need not mind: the verifier
finds it.  What reads to act does: `require_proven` holds entries against the signed head first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, exists, select
from sqlalchemy.exc import NoResultFound

from audit.beside import describe, described_contents
from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint
from audit.entry import Entry, read_entry
from audit.errors import AuditCorrupt, AuditRefused, EntryNotFound, EntryPruned, ProofRefused
from audit.event import SealedContent
from audit.location import LogLocation
from audit.measure import LogMeasure, measure_log
from audit.merkle import consistency_proof, growth_coordinates, inclusion_proof, verify_inclusion
from audit.migrating import require_revision
from audit.pairing import Pairing
from audit.proof import EntryProof
from audit.schema import checkpoint_table, content_table, leaf_table
from audit.search.expression import EVERYTHING, Equal, Expression, Within, all_of
from audit.search.fields import RANGE_END
from audit.search.leaf_values import holds
from audit.search.pages import find_page
from audit.search.time_map import TimeMap
from audit.store import Floors, NodeLookup, newest_checkpoint, open_engine, require_kinds, snapshot, stored_floors

MAX_PAGE_LEN = 1_000


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """The same language for callers who need no more of it: all given conditions must hold; None asks nothing."""

    kind: str | None = None
    actor: str | None = None
    role: str | None = None
    tenant: str | None = None
    subject: str | None = None
    route: str | None = None
    model_root: str | None = None
    decision: str | None = None
    outcome: str | None = None
    label: str | None = None
    from_ts_us: int | None = None
    """Inclusive."""
    until_ts_us: int | None = None
    """Exclusive."""

    def expression(self) -> Expression:
        """Say it in the language of filters."""
        parts: list[Expression] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                parts.append(Equal(field.name, value))
        if self.from_ts_us is not None or self.until_ts_us is not None:
            until = RANGE_END if self.until_ts_us is None else self.until_ts_us
            parts.append(Within("time", self.from_ts_us or 0, until))
        return all_of(parts)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in order, and where the next page starts."""

    entries: tuple[Entry, ...]
    next_after: int | None
    """Pass as `after` for the next page; None when there is none.  A page may be short, or empty, and have a next."""


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A stored checkpoint with its note as signed; the caller verifies the note with a key it trusts."""

    checkpoint: Checkpoint
    note: str


@dataclass(frozen=True, slots=True)
class OpenSubject:
    """Something that was opened and has not ended."""

    subject: str
    index: int


class AuditReader:
    """Reads one log; safe to use from several threads."""

    def __init__(self, location: LogLocation, verifiers: Sequence[LogVerifier] = ()) -> None:
        """Open the log.

        Args:
            location: where it is.
            verifiers: the log's public keys; without them nothing can be proven (`require_proven`).
        """
        self._location = location
        self._verifiers = tuple(verifiers)
        self._engine = open_engine(location, read_only=True)
        self._time_map = TimeMap()
        try:
            with snapshot(self._engine, location) as connection:
                require_revision(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    @property
    def location(self) -> LogLocation:
        """Where the log is."""
        return self._location

    def close(self) -> None:
        """Let the connections go."""
        self._engine.dispose()

    def head(self) -> SignedCheckpoint:
        """Return the newest checkpoint."""
        with snapshot(self._engine, self._location) as connection:
            return _newest(connection)

    def checkpoint(self, size: int) -> SignedCheckpoint:
        """Return the checkpoint that was signed at exactly this size."""
        with snapshot(self._engine, self._location) as connection:
            return _checkpoint_at(connection, size)

    def entry(self, index: int) -> Entry:
        """Return one entry."""
        with snapshot(self._engine, self._location) as connection:
            return _entry_at(connection, index)

    def entries(
        self,
        conditions: EntryFilter | Expression = EVERYTHING,
        *,
        after: int | None = None,
        limit: int = 100,
        newest: bool = False,
        size: int | None = None,
    ) -> Page:
        """Return a page in index order, or newest first.

        Args:
            conditions: which entries.
            after: index of the last entry of the page before, exclusive in the direction of reading.
            limit: at most this many, `MAX_PAGE_LEN` at most.
            newest: newest first.
            size: of the entries below this index, as if the log had not grown since; None: of all that are signed.

        Raises:
            AuditCorrupt: an entry, or the columns that found it, contradict its bytes.
            FilterRefused: the conditions have too many alternatives.
        """
        if not 1 <= limit <= MAX_PAGE_LEN:
            raise AuditRefused(f"a page has 1 to {MAX_PAGE_LEN} entries")
        expression = conditions.expression() if isinstance(conditions, EntryFilter) else conditions
        with snapshot(self._engine, self._location) as connection:
            signed, _, _ = newest_checkpoint(connection)
            size = signed if size is None else min(size, signed)
            floor = stored_floors(connection).leaf
            if floor:
                expression = all_of([Within("index", floor, RANGE_END), expression])
            found = find_page(connection, self._time_map, expression, size, after=after, limit=limit, newest=newest)
            return Page(_entries_at(connection, found.indexes, expression), found.next_after)

    def walk(self, expression: Expression = EVERYTHING, *, size: int | None = None) -> Iterator[Entry]:
        """Give every entry that is meant, in order, page by page: as many as there are, in little memory.

        Args:
            expression: which entries.
            size: as `entries` takes it; None: as large as the log is when the walk begins.
        """
        size = self.head().checkpoint.size if size is None else size
        after: int | None = None
        while True:
            page = self.entries(expression, after=after, limit=MAX_PAGE_LEN, size=size)
            yield from page.entries
            after = page.next_after
            if after is None:
                return

    def leaf_hashes(self, indexes: Sequence[int]) -> dict[int, bytes]:
        """Return the stored leaf hashes of those indexes that the log holds; at most `MAX_PAGE_LEN` are asked for."""
        assert len(indexes) <= MAX_PAGE_LEN, f"{len(indexes)} indexes at once"
        query = select(leaf_table.c.idx, leaf_table.c.leaf_hash).where(leaf_table.c.idx.in_(sorted(set(indexes))))
        with snapshot(self._engine, self._location) as connection:
            found: dict[int, bytes] = {}
            for index, digest in connection.execute(query):
                require_kinds(index, (digest, bytes))
                found[index] = digest
        return found

    def content(self, index: int, phase: str) -> SealedContent | None:
        """Return what was sealed beside an entry, held against the entry; None where nothing was, or it was pruned."""
        with snapshot(self._engine, self._location) as connection:
            said = described_contents(_entry_at(connection, index).leaf.event).get(phase)
            query = select(content_table).where(content_table.c.idx == index, content_table.c.phase == phase)
            row = connection.execute(query).one_or_none()
            floor = stored_floors(connection).content
        if said is None or (row is None and index < floor):
            return None
        if row is None:
            raise AuditCorrupt(index, f"the sealed {phase} is missing")
        require_kinds(index, (row.key_id, str), (row.nonce, bytes), (row.ciphertext, bytes))
        content = SealedContent(phase, row.key_id, row.nonce, row.ciphertext)
        if describe(content) != said:
            raise AuditCorrupt(index, f"the sealed {phase} is not what the entry says")
        return content

    def measure(self, now_us: int) -> LogMeasure:
        """Return how large the log is and how it has grown; `now_us` in UTC microseconds."""
        with snapshot(self._engine, self._location) as connection:
            return measure_log(connection, self._location, _newest(connection).checkpoint.size, now_us)

    def floors(self) -> Floors:
        """Return below which indices contents, or whole entries, were pruned; 0 where nothing was."""
        with snapshot(self._engine, self._location) as connection:
            return stored_floors(connection)

    def tail(self, count: int) -> tuple[Entry, ...]:
        """Return the last entries, oldest first."""
        return self.entries(limit=count, newest=True).entries[::-1]

    def proof(self, index: int, size: int | None = None) -> EntryProof:
        """Prove that the leaf at `index` is in the tree of a signed size, the newest by default."""
        with snapshot(self._engine, self._location) as connection:
            signed = _newest(connection) if size is None else _checkpoint_at(connection, size)
            if not 0 <= index < signed.checkpoint.size:
                raise EntryNotFound(f"entry {index} is not in the tree of {signed.checkpoint.size} entries")
            _require_not_pruned(connection, index)
            path = inclusion_proof(_Nodes(connection), index, signed.checkpoint.size)
        return EntryProof(index, tuple(path), signed.note)

    def require_proven(self, *entries: Entry) -> None:
        """Refuse entries that are not leaves of the tree whose head the log's key signed.

        Raises:
            AuditCorrupt: an entry was exchanged, with its hash, since it was written; or no key is known here.
        """
        if not entries:
            return
        with snapshot(self._engine, self._location) as connection:
            try:
                head = open_checkpoint(_newest(connection).note, self._verifiers)
            except ProofRefused as error:
                raise AuditCorrupt(None, f"the newest checkpoint: {error.what}", hint=error.hint) from error
            nodes = _Nodes(connection)
            for entry in entries:
                _require_not_pruned(connection, entry.index)
                try:
                    path = inclusion_proof(nodes, entry.index, head.size)
                    verify_inclusion(entry.leaf_hash, entry.index, head.size, path, head.root)
                except ProofRefused as error:
                    raise AuditCorrupt(entry.index, f"it is not what was signed here: {error.what}") from error

    def consistency(self, old_size: int, new_size: int | None = None) -> tuple[bytes, ...]:
        """Prove that the tree of `old_size` is a prefix of the tree of a later signed size, the newest by default."""
        with snapshot(self._engine, self._location) as connection:
            signed = _newest(connection) if new_size is None else _checkpoint_at(connection, new_size)
            if not 0 <= old_size <= signed.checkpoint.size:
                raise EntryNotFound(f"size {old_size} is not within the tree of {signed.checkpoint.size} entries")
            if old_size:
                _require_not_pruned(connection, old_size)
            return tuple(consistency_proof(_Nodes(connection), old_size, signed.checkpoint.size))

    def subtrees(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Return the fewest complete subtrees that lead from a tree of `old_size` to a later signed size."""
        with snapshot(self._engine, self._location) as connection:
            size = _checkpoint_at(connection, new_size).checkpoint.size
            if not 0 <= old_size <= size:
                raise EntryNotFound(f"size {old_size} is not within the tree of {size} entries")
            read = _Nodes(connection)
            return tuple(read(level, index) for level, index in growth_coordinates(old_size, size))

    def open_subjects(self, pairing: Pairing, *, from_index: int = 0) -> tuple[OpenSubject, ...]:
        """Return what was opened at or after `from_index` and has no end, in order of opening."""
        opened, ended = leaf_table.alias("opened"), leaf_table.alias("ended")
        has_end = exists().where(ended.c.subject == opened.c.subject, ended.c.kind.in_(sorted(pairing.terminals)))
        query = (
            select(opened.c.subject, opened.c.idx)
            .where(opened.c.kind == pairing.opening, opened.c.idx >= from_index, ~has_end)
            .order_by(opened.c.idx)
        )
        with snapshot(self._engine, self._location) as connection:
            return tuple(OpenSubject(row.subject, row.idx) for row in connection.execute(query))


class _Nodes(NodeLookup):
    """A missing node is corruption here, not a bug of the caller."""

    __slots__ = ()

    def __call__(self, level: int, index: int) -> bytes:
        """Return one complete node's hash."""
        try:
            return super().__call__(level, index)
        except NoResultFound as error:
            raise AuditCorrupt(index << level, f"node ({level}, {index}) is missing") from error


def _newest(connection: Connection) -> SignedCheckpoint:
    return _signed(*newest_checkpoint(connection))


def _checkpoint_at(connection: Connection, size: int) -> SignedCheckpoint:
    columns = (checkpoint_table.c.size, checkpoint_table.c.root, checkpoint_table.c.note)
    row = connection.execute(select(*columns).where(checkpoint_table.c.size == size)).one_or_none()
    if row is None:
        raise EntryNotFound(f"no checkpoint was signed at size {size}")
    return _signed(*row)


def _signed(size: int, root: bytes, note: str) -> SignedCheckpoint:
    require_kinds(None, (root, bytes), (note, str))
    origin = note.partition("\n")[0]
    return SignedCheckpoint(Checkpoint(origin, size, root), note)


def _require_not_pruned(connection: Connection, index: int) -> None:
    minimum_index = stored_floors(connection).leaf
    if 0 <= index < minimum_index:
        raise EntryPruned(index, minimum_index)


def _entry_at(connection: Connection, index: int) -> Entry:
    _require_not_pruned(connection, index)
    query = select(leaf_table.c.idx, leaf_table.c.leaf_bytes, leaf_table.c.leaf_hash)
    row = connection.execute(query.where(leaf_table.c.idx == index)).one_or_none()
    if row is None:
        raise EntryNotFound(f"there is no entry {index}")
    return _entry(*row)


def _entries_at(connection: Connection, indexes: Sequence[int], expression: Expression) -> tuple[Entry, ...]:
    """Return these entries, each of which the columns say is meant; its bytes have the last word."""
    if not indexes:
        return ()
    query = select(leaf_table.c.idx, leaf_table.c.leaf_bytes, leaf_table.c.leaf_hash)
    rows = {row.idx: row for row in connection.execute(query.where(leaf_table.c.idx.in_(indexes)))}
    entries = tuple(_entry(*rows[index]) for index in indexes)
    for entry in entries:
        if not holds(expression, entry.leaf):
            raise AuditCorrupt(entry.index, "its columns say something else than its bytes")
    return entries


def _entry(index: int, leaf_bytes: bytes, digest: bytes) -> Entry:
    require_kinds(index, (leaf_bytes, bytes), (digest, bytes))
    return read_entry(index, leaf_bytes, digest)
