"""The policy bundle: a set of named files, its digest, and the one way from its bytes to an engine.

The caller has verified a signature over the names and digests of the very bytes it passes in.  Loading refuses a
bundle unless every file is understood, schema and action table agree, the invariants of this release hold whatever
the site's overlay says, and the bundle keeps every promise of its own tables.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

from policies.cedar import PolicyEngine
from policies.compile import compile_policies, compile_schema
from policies.errors import BundleRefused, TableRefused
from policies.schema_check import check_schema
from policies.table import TableCase, read_table, run_table

SCHEMA_FILE: Final = "schema/appliance.cedarschema"
INVARIANTS_TABLE: Final = "tests/invariants.json"
MAX_FILES: Final = 256
_POLICY_FILE: Final = re.compile(r"(?:base|site)/[a-z0-9][a-z0-9-]{0,63}\.cedar", re.ASCII)
_TABLE_FILE: Final = re.compile(r"tests/[a-z0-9][a-z0-9-]{0,63}\.json", re.ASCII)
_SHOWN_FAILURES: Final = 5


def load_bundle(files: Mapping[str, bytes]) -> PolicyEngine:
    """Turn the verified bytes of a bundle into an engine.

    Raises:
        BundleRefused: anything about it is wrong; nothing was loaded.
    """
    engine = compile_bundle(files)
    _prove(engine, read_table(INVARIANTS_TABLE, _released_invariants()), "an invariant of this release does not hold")
    _prove(engine, read_tables(files), "the policies contradict the bundle's own table")
    return engine


def compile_bundle(files: Mapping[str, bytes]) -> PolicyEngine:
    """As `load_bundle`, but whether invariants and tables hold is left to the caller, who wants to see which do not."""
    policies = _policy_files(files)
    schema = compile_schema(SCHEMA_FILE, files[SCHEMA_FILE])
    check_schema(SCHEMA_FILE, schema)
    compiled = compile_policies(policies, schema)
    return PolicyEngine(
        schema=schema,
        policies=compiled.policies,
        permits=compiled.permits,
        forbids=compiled.forbids,
        policy_digest=policy_digest(files),
    )


def policy_digest(files: Mapping[str, bytes]) -> str:
    """The bundle's identity, 64 hexadecimal digits.

    SHA-256 over one line `<sha256>  <name>` per file in the order of the names' bytes: what `sha256sum` prints, so
    that an auditor needs nothing of ours: `LC_ALL=C sha256sum */*.cedar* tests/*.json | LC_ALL=C sort -k 2 | sha256sum`.
    """
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_tables(files: Mapping[str, bytes]) -> tuple[TableCase, ...]:
    """Every case that the bundle's own tables promise.

    Raises:
        TableRefused: a table is not of its form.
    """
    return tuple(
        case for name in sorted(files) if _TABLE_FILE.fullmatch(name) for case in read_table(name, files[name])
    )


def read_source_bundle() -> Mapping[str, bytes]:
    """The files that this release delivers, for provisioning to sign."""
    return read_bundle_folder(package_files("policies"))


def read_bundle_folder(root: Traversable) -> Mapping[str, bytes]:
    """The bundle files below a folder; a README is for people and stays behind.

    Raises:
        BundleRefused: a file whose name has no place in a bundle; leaving it out in silence would drop its forbids.
    """
    found = {
        f"{folder}/{file.name}": file.read_bytes()
        for folder in ("schema", "base", "site", "tests")
        for file in _files_of(root / folder)
    }
    _refuse_unnamed(found)
    return MappingProxyType(dict(sorted(found.items())))


def _policy_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The Cedar files among `files`; every name must be one we know the meaning of."""
    _refuse_unnamed(files)
    if len(files) > MAX_FILES:
        raise BundleRefused(f"{len(files)} files, at most {MAX_FILES} are read", hint="join some")
    if SCHEMA_FILE not in files:
        raise BundleRefused("missing", hint="a bundle carries its schema", file=SCHEMA_FILE)
    policies = {name: content for name, content in files.items() if _POLICY_FILE.fullmatch(name)}
    if not any(name.startswith("base/") for name in policies):
        raise BundleRefused("no file in base/", hint="a bundle carries the base policies")
    return policies


def _refuse_unnamed(names: Iterable[str]) -> None:
    for name in sorted(names):
        if name != SCHEMA_FILE and not _POLICY_FILE.fullmatch(name) and not _TABLE_FILE.fullmatch(name):
            raise BundleRefused(
                "no place in a bundle for this name", hint="see policies/bundle.py for the names", file=ascii(name)
            )


def _prove(engine: PolicyEngine, cases: tuple[TableCase, ...], message: str) -> None:
    failures = run_table(engine, cases)
    if failures:
        shown = "; ".join(str(failure) for failure in failures[:_SHOWN_FAILURES])
        raise TableRefused(f"{message} ({len(failures)} of {len(cases)}): {shown}", hint="correct the policies")


def _released_invariants() -> bytes:
    """From the installed release, not from the bundle: a bundle cannot soften what it is judged by."""
    return (package_files("policies") / INVARIANTS_TABLE).read_bytes()


def _files_of(folder: Traversable) -> Iterator[Traversable]:
    return (entry for entry in folder.iterdir() if entry.is_file() and entry.name != "README.md")
