"""The policy bundle: a set of named files, its digest, and the one way from its bytes to an engine.

The caller has verified a signature over the names and digests of the very bytes it passes in.  Loading refuses a
bundle unless every file is understood, schema and action table agree, the invariants of this release stand in it
unchanged, and it keeps every promise of its own tables.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

import cedarpy

from policies.cedar import PolicyEngine
from policies.compile import CompiledPolicies, compile_policies, compile_schema, parse_policies
from policies.errors import BundleRefused, PolicyRefused, TableRefused
from policies.lint import INVARIANTS_FILE, ParsedPolicy
from policies.schema_check import check_schema
from policies.table import TableCase, read_table, run_table
from policies.text_guard import guarded_text

SCHEMA_FILE: Final = "schema/appliance.cedarschema"
MAX_FILES: Final = 256
_POLICY_FILE: Final = re.compile(r"(?:base|site)/[a-z0-9][a-z0-9-]{0,63}\.cedar", re.ASCII)
_TABLE_FILE: Final = re.compile(r"tests/[a-z0-9][a-z0-9-]{0,63}\.json", re.ASCII)
_SHOWN_FAILURES: Final = 5


def load_bundle(files: Mapping[str, bytes]) -> PolicyEngine:
    """Turn the verified bytes of a bundle into an engine.

    Raises:
        BundleRefused: anything about it is wrong; nothing was loaded.
    """
    schema, compiled = _compile(files)
    _check_invariants(compiled.parsed)
    engine = _engine(files, schema, compiled)
    _prove(engine, read_tables(files))
    return engine


def policy_digest(files: Mapping[str, bytes]) -> str:
    """The bundle's identity, 64 hexadecimal digits.

    SHA-256 over one line `<sha256>  <name>` per file in the order of the names' bytes: what `sha256sum` prints, so
    that an auditor needs nothing of ours: `sha256sum */*.cedar* tests/*.json | LC_ALL=C sort -k 2 | sha256sum`.
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


def _compile(files: Mapping[str, bytes]) -> tuple[cedarpy.Schema, CompiledPolicies]:
    policies = _policy_files(files)
    schema = compile_schema(SCHEMA_FILE, files[SCHEMA_FILE])
    check_schema(SCHEMA_FILE, schema)
    return schema, compile_policies(policies, schema)


def _engine(files: Mapping[str, bytes], schema: cedarpy.Schema, compiled: CompiledPolicies) -> PolicyEngine:
    return PolicyEngine(
        schema=schema,
        policies=compiled.policies,
        permits=compiled.permits,
        forbids=compiled.forbids,
        policy_digest=policy_digest(files),
    )


def _check_invariants(parsed: Mapping[str, ParsedPolicy]) -> None:
    """Each invariant of the installed release stands in the bundle word for word, layout aside.

    A signature alone does not make a bundle safe: its signers may add invariants, never soften or drop one.
    """
    released = (package_files("policies") / INVARIANTS_FILE).read_bytes()
    for invariant in parse_policies(INVARIANTS_FILE, guarded_text(INVARIANTS_FILE, released)):
        found = parsed.get(invariant.id)
        if found is None or found.form != invariant.form:
            raise PolicyRefused(
                "this invariant of the release is changed" if found else "this invariant of the release is missing",
                hint=f"take {INVARIANTS_FILE} of the installed release and sign the bundle again",
                file=found.file if found else INVARIANTS_FILE,
                policy_id=invariant.id,
            )


def _prove(engine: PolicyEngine, cases: tuple[TableCase, ...]) -> None:
    failures = run_table(engine, cases)
    if failures:
        shown = "; ".join(str(failure) for failure in failures[:_SHOWN_FAILURES])
        raise TableRefused(
            f"the policies break {len(failures)} of the {len(cases)} promises in the bundle's tables: {shown}",
            hint="correct the policies, or the promise that is no longer meant",
        )


def _files_of(folder: Traversable) -> Iterator[Traversable]:
    return (entry for entry in folder.iterdir() if entry.is_file() and entry.name != "README.md")
