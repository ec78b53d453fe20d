"""What may be a bundle, and what names it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from policy_questions import infer_facts, with_site, without_tables

from policies.bundle import MAX_FILES, SCHEMA_FILE, load_bundle, policy_digest, read_bundle_folder, read_source_bundle
from policies.decision import Allow, Obligations
from policies.errors import BundleRefused, PolicyRefused, SchemaRefused, TextRefused
from policies.lint import INVARIANTS_FILE

SOURCE = read_source_bundle()


def changed(file: str, old: str, new: str) -> dict[str, bytes]:
    """The delivered bundle with one text replaced; it must have been there."""
    text = SOURCE[file].decode()
    assert old in text
    return {**SOURCE, file: text.replace(old, new).encode()}


def test_the_source_bundle_is_the_folder(repository):
    """Everything below policies/ that is policy, and nothing else."""
    root = repository / "policies"
    kinds = ("schema/*.cedarschema", "base/*.cedar", "site/*.cedar", "tests/*.json")
    expected = {path.relative_to(root).as_posix() for kind in kinds for path in root.glob(kind)}
    assert set(SOURCE) == expected
    assert all((root / name).read_bytes() == content for name, content in SOURCE.items())


def test_the_digest_is_what_sha256sum_prints(tmp_path):
    """An auditor recomputes it without us."""
    lines = []
    for name, content in sorted(SOURCE.items()):
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    script = "sha256sum */*.cedar* tests/*.json | LC_ALL=C sort -k 2 | sha256sum"
    printed = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    assert printed.split()[0] == policy_digest(SOURCE) == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert load_bundle(SOURCE).policy_digest == policy_digest(SOURCE)


def test_every_byte_and_name_changes_the_digest():
    """A changed byte, a renamed, added or missing file is another bundle; the order given is not."""
    digests = {policy_digest(SOURCE)}
    for name, content in SOURCE.items():
        rest = {other: kept for other, kept in SOURCE.items() if other != name}
        for variant in ({**rest, name: content + b"\n"}, {**rest, name + "x": content}, rest):
            digests.add(policy_digest(variant))
    assert len(digests) == 1 + 3 * len(SOURCE)
    assert policy_digest(dict(reversed(list(SOURCE.items())))) == policy_digest(SOURCE)


@pytest.mark.parametrize(
    "name",
    [
        "base/../x.cedar",
        "base/a/b.cedar",
        "/base/a.cedar",
        "base/A.cedar",
        "site/README.md",
        "other/a.cedar",
        "base/a\n.cedar",
        "",
    ],
)
def test_a_file_with_no_place_is_refused(name):
    """Nothing in a bundle is ignored."""
    with pytest.raises(BundleRefused, match="no place in a bundle"):
        load_bundle({**SOURCE, name: b""})


def test_a_stray_file_in_the_folder_is_refused(tmp_path):
    """A misnamed overlay file is an error when it is signed, not a rule that silently does not exist."""
    for name, content in {**SOURCE, "site/README.md": b"", "site/Night.cedar": b""}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(BundleRefused, match=r"Night\.cedar"):
        read_bundle_folder(tmp_path)
    (tmp_path / "site" / "Night.cedar").unlink()
    assert read_bundle_folder(tmp_path) == SOURCE


def test_a_bundle_without_schema_or_base_is_refused():
    """Both are the house; an overlay alone is none."""
    with pytest.raises(BundleRefused, match="missing"):
        load_bundle({name: content for name, content in SOURCE.items() if name != SCHEMA_FILE})
    with pytest.raises(BundleRefused, match="no file in base/"):
        load_bundle({name: content for name, content in SOURCE.items() if not name.startswith("base/")})
    with pytest.raises(BundleRefused, match="at most"):
        load_bundle(with_site(SOURCE, *["// nothing\n"] * MAX_FILES))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("context.label > principal.clearance", "context.label > 4", "changed"),
        ("unless { resource.approved }", 'unless { resource.approved || principal == User::"eve" }', "changed"),
        ('@id("auditor-never-infers")', '@id("auditor-may-infer")', "missing"),
        ('forbid (principal in Role::"operator"', 'permit (principal in Role::"operator"', "among the invariants"),
    ],
)
def test_a_bundle_that_softens_an_invariant_is_refused(old, new, complaint):
    """Whoever signed it: the release's invariants stand word for word."""
    with pytest.raises(PolicyRefused, match=complaint):
        load_bundle(without_tables(changed(INVARIANTS_FILE, old, new)))


def test_layout_and_further_invariants_are_free():
    """Comments and spacing are no change, and a site may add invariants of its own."""
    more = SOURCE[INVARIANTS_FILE].decode().replace("forbid (", "// why\nforbid   (")
    more += '@id("no-metrics") forbid (principal, action == Action::"readMetrics", resource is Appliance);'
    assert "no-metrics" in load_bundle(without_tables({**SOURCE, INVARIANTS_FILE: more.encode()})).policy_ids


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("label: Long, //", "label?: Long, //", "accepted with label missing"),
        ("label: Long, // 0-4\n", "", "not accepted"),
        ("label: Long, //", "label: String, //", "not accepted"),
        ("logprobs: Bool,", "logprobs: Bool, purpose?: String,", ""),
        ("logprobs: Bool,", "logprobs: Bool, purpose: String,", "not accepted"),
        ("max_label: Long, //", "max_label?: Long, //", "attribute max_label missing"),
        ('"auditor", "developer", "operator"', '"auditor", "developer", "operator", "root"', "roles differ"),
        ("entity Role enum", "entity Group; entity Role enum", ""),
        ('entity Role enum ["auditor", "developer", "operator", "peer", "privacy"];', "entity Role;", "roles differ"),
        ("action infer appliesTo", "action mintKey, infer appliesTo", "actions differ"),
        ("action tokenize appliesTo", "action tokenise appliesTo", "actions differ"),
        (
            "action tokenize appliesTo { principal: [User, Service], resource: [Model]",
            "action tokenize appliesTo { principal: [User, Service], resource: [Model, Appliance]",
            "target Appliance",
        ),
        (
            "action tokenize appliesTo { principal: [User, Service]",
            "action tokenize appliesTo { principal: [User]",
            "tokenize by Service is not accepted",
        ),
    ],
)
def test_a_schema_that_disagrees_with_the_action_table_is_refused(old, new, complaint):
    """Table == schema: every action, role, fact, type and target."""
    bundle = without_tables(changed(SCHEMA_FILE, old, new))
    if not complaint:
        # An optional fact that no question carries, or an entity that nobody is, changes no decision.
        assert isinstance(load_bundle(bundle).decide(infer_facts()), Allow)
        return
    with pytest.raises(SchemaRefused, match=complaint):
        load_bundle(bundle)


def test_a_schema_that_is_none_is_refused():
    """The parser's complaint reaches the author; its bounds hold for the schema too."""
    with pytest.raises(SchemaRefused, match="correct the schema"):
        load_bundle({**SOURCE, SCHEMA_FILE: b"entity"})
    deep = b"type T = " + b"Set<" * 5000 + b"Long" + b">" * 5000 + b";"
    with pytest.raises(TextRefused, match="nested deeper"):
        load_bundle({**SOURCE, SCHEMA_FILE: deep})


def test_obligations_are_the_strictest_of_all_permits_that_applied():
    """The most recorded level and the lowest cap, whichever permit asks for it."""
    infer = 'permit (principal, action == Action::"infer", resource)'
    site = (
        f'@id("site.a") @max_tokens_cap("2048") {infer};',
        f'@id("site.b") @max_tokens_cap("512") @log_level("metadata") {infer};',
        f'@id("site.c") @log_level("encrypted") {infer} when {{ principal is Service }};',
        f'@id("site.d") @max_tokens_cap("1") {infer} when {{ context.stream }};',
    )
    engine = load_bundle(with_site(without_tables(SOURCE), *site))
    decision = engine.decide(infer_facts())
    assert decision.policy_ids == ("developer-infers", "site.a", "site.b")
    assert decision.obligations == Obligations(log_level="commitments", max_tokens_cap=512)
    decision = engine.decide(infer_facts(subject={"kind": "Service", "roles": ()}, context={"stream": True}))
    assert decision.policy_ids == ("site.a", "site.b", "site.c", "site.d")
    assert decision.obligations == Obligations(log_level="encrypted", max_tokens_cap=1)


def test_the_packaged_files_are_found_from_anywhere(repository, tmp_path):
    """Nothing depends on the working directory."""
    code = "from policies.bundle import *; print(load_bundle(read_source_bundle()).policy_digest)"
    environment = {"PYTHONPATH": f"{repository / 'tests' / 'guard'}:{repository}"}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True, text=True
    ).stdout
    assert printed.strip() == policy_digest(SOURCE)
    assert Path.cwd() != tmp_path
