"""The single file: its Ed25519 against the RFC and against `cryptography`, and the promises that it makes of itself."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import OTHER_SIGNER, SIGNER
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from two_verifiers import STANDALONE, VERIFIER_FILE

from audit.checkpoint import Checkpoint, LogSigner, LogVerifier, open_checkpoint, sign_checkpoint
from audit.errors import AuditRefused, KeyRefused, ProofRefused
from audit.event import Event
from audit.evidence.growth import grown_root
from audit.leaf import Place, decode_leaf, draft_leaf, fact_text
from audit.merkle import EMPTY_EDGE, growth_coordinates, leaf_hash
from audit.tiles import Tile

RFC_8032 = (
    ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", ""),
    ("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72"),
    ("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82"),
    ("ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf", hashlib.sha512(b"abc").hexdigest()),
)
"""Section 7.1: public keys and messages, in hexadecimal."""
RFC_8032_SIGNATURES = (
    """e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b
    d25bf5f0595bbe24655141438e7a100b""",
    """92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c
    387b2eaeb4302aeeb00d291612bb0c00""",
    """6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659
    4a7c15e9716ed28dc027beceea1ec40a""",
    """dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030
    3dca179c138ac17ad9bef1177331a704""",
)
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = (
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    (0).to_bytes(32, "little"),
    (1 << 255).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
)
"""The eight points of small order, each in its one encoding."""
NOT_CANONICAL = (
    *(((y + P) | sign << 255).to_bytes(32, "little") for y in range(19) for sign in (0, 1)),
    (1 | 1 << 255).to_bytes(32, "little"),
    (P - 1 | 1 << 255).to_bytes(32, "little"),
)
"""Every encoding of a point that has another one: y not below p, or the sign of a zero."""


def ours(key: bytes, message: bytes, signature: bytes) -> bool:
    """The single file's verdict."""
    try:
        STANDALONE.check_signature(key, message, signature)
    except ValueError:
        return False
    return True


def theirs(key: bytes, message: bytes, signature: bytes) -> bool:
    """OpenSSL's verdict, by `cryptography`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize("number", range(4), ids=["empty", "1 byte", "2 bytes", "sha(abc)"])
def test_the_vectors_of_the_rfc_verify_and_no_bit_of_them_may_change(number: int) -> None:
    """Valid as they stand; one flipped bit of key, message or signature is refused."""
    key, message = RFC_8032[number]
    signature = RFC_8032_SIGNATURES[number]
    parts = [bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature)]
    assert ours(*parts)
    draw = random.Random(signature)
    for position, part in enumerate(parts):
        for bit in draw.sample(range(8 * len(part)), min(16, 8 * len(part))):
            changed = bytearray(part)
            changed[bit // 8] ^= 1 << bit % 8
            assert not ours(*parts[:position], bytes(changed), *parts[position + 1 :])


def drawn_cases(seed: int, count: int) -> list[tuple[bytes, bytes, bytes]]:
    """Signatures of all sorts: good, bent, malleable, of small order, not canonical, of the wrong length, noise."""
    draw = random.Random(seed)
    cases = []
    for number in range(count):
        private = Ed25519PrivateKey.from_private_bytes(draw.randbytes(32))
        key, message = private.public_key().public_bytes_raw(), draw.randbytes(draw.randrange(80))
        signature = private.sign(message)
        r, s = signature[:32], int.from_bytes(signature[32:], "little")
        small = draw.choice(SMALL_ORDER)
        match number % 9:
            case 0:
                pass
            case 1:
                bent = bytearray(signature)
                bent[draw.randrange(64)] ^= 1 << draw.randrange(8)
                signature = bytes(bent)
            case 2:
                signature = r + (s + L * draw.choice((1, 2, 3, 7))).to_bytes(32, "little")
            case 3:  # with a key of small order: true for one message in a few
                key, signature = small, draw.choice(SMALL_ORDER) + bytes(32)
            case 4:
                signature = small + signature[32:]
            case 5:
                signature = draw.choice(NOT_CANONICAL) + bytes(32)
                key = draw.choice((key, small))
            case 6:
                signature = signature[: draw.randrange(64)] if number % 2 else signature + b"\0"
            case 7:
                signature, key = draw.randbytes(64), draw.choice((key, draw.randbytes(32)))
            case 8:
                signature = r + (L - 1 - s).to_bytes(32, "little")
        cases.append((key, message, signature))
    return cases


def test_our_ed25519_says_what_openssl_says() -> None:
    """On drawn signatures of every sort, good and bad, of small order and malleable: the same verdict, each time."""
    cases = drawn_cases(seed=8032, count=2_700)
    verdicts = [(ours(*case), theirs(*case)) for case in cases]
    assert [case for case, (one, other) in zip(cases, verdicts, strict=True) if one is not other] == []
    num_good = sum(one for one, _ in verdicts)
    assert 300 < num_good < 700  # every good one, and those of small order that hold


@pytest.mark.parametrize("key", NOT_CANONICAL, ids=[key.hex()[:8] + key.hex()[-4:] for key in NOT_CANONICAL])
def test_a_key_in_a_second_encoding_is_refused(key: bytes) -> None:
    """Stricter than OpenSSL, which reads such a key as its point."""
    for r in SMALL_ORDER:
        assert not ours(key, b"m", r + bytes(32))


def test_every_point_of_small_order_decodes_and_has_small_order() -> None:
    """The table above is what it says."""
    assert len(set(SMALL_ORDER)) == 8
    for encoded in SMALL_ORDER:
        point = STANDALONE.point_decode(encoded)
        for _ in range(3):
            point = STANDALONE.point_add(point, point)
        x, y, z, _ = point
        assert (x % P, (y - z) % P) == (0, 0)


FACTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**53) + 1, 2.0**53 - 1)
    | st.floats(-1e-3, 1e-3)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=126), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(facts=st.dictionaries(st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True), FACTS, max_size=6), data=st.data())
def test_both_read_the_same_leaves_and_refuse_the_same_bytes(facts: dict[str, object], data: st.DataObject) -> None:
    """Any leaf that can be written, and any byte of it changed."""
    event = Event("a:b", 1, 2, "ada", "", "", "s", facts)
    leaf = draft_leaf(event, Place("n", "b", 1)).encode(3, 3)
    assert STANDALONE.decode_leaf(leaf)["facts"] == json.loads(fact_text(facts))
    changed = bytearray(leaf)
    changed[data.draw(st.integers(0, len(leaf) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert reads(STANDALONE.decode_leaf, bytes(changed)) == reads(decode_leaf, bytes(changed))


@pytest.mark.parametrize(
    "change",
    [
        (b'"v":1', b'"v":true'),
        (b'"v":1', b'"v":1.0'),
        (b'"x":1', b'"x":1e0'),
        (b'"x":1', b'"x":NaN'),
        (b'"x":1', b'"x":Infinity'),
        (b'"x":1', b'"x":9007199254740992'),
        (b'"x":1', b'"x":-0'),
        (b'"x":1', b'"x":-0.0'),
        (b'"x":1', b'"x":1,"x":1'),
        (b'"x":1', b'"x":' + b"[" * 16 + b"]" * 16),
        (b'"x":1', b'"x":' + b"[" * 16 + b"1" + b"]" * 16),
        (b'"x":1', b'"x":' + b"[" * 17 + b"]" * 17),
        (b'"x":1', b'"x":' + b"[" * 30_000 + b"]" * 30_000),
        (b'"x":1', b'"x":"\\ud800"'),
        (b'"x":1', b'"x":"\\u0041"'),
        (b'"x":1', b'"\xc3\xa9":1'),
        (b'"x":1', b'"X":1'),
        (b'"x":1', b'"x":{"\xc3\xa9":1}'),
        (b'"x":1', b'"x": 1'),
        (b'"x":1', b'"x":1e-07'),
        (b'"x":1', b'"x":0.00001'),
        (b'"x":1', b'"x":1e-7'),
        (b'"x":1', b'"x":1e400'),
        (b'"mono_ns":"2"', b'"mono_ns":"9223372036854775808"'),
        (b'"mono_ns":"2"', b'"mono_ns":"\xd9\xa2"'),
        (b'"mono_ns":"2"', b'"mono_ns":"02"'),
        (b'"mono_ns":"2"', b'"mono_ns":2'),
        (b'"kind":"a:b"', b'"kind":"a:b\\n"'),
        (b'"kind":"a:b"', b'"kind":"ab"'),
        (b'"actor":"ada"', b'"actor":""'),
        (b'"epoch":1', b'"epoch":-1'),
        (b'"epoch":1', b'"epoch":true'),
        (b'"facts":{"x":1}', b'"facts":[]'),
    ],
    ids=lambda change: change[1].decode(errors="replace")[:24],
)
def test_both_judge_crafted_leaves_alike(change: tuple[bytes, bytes]) -> None:
    """Whatever JSON readers disagree on."""
    leaf = draft_leaf(Event("a:b", 1, 2, "ada", "", "", "s", {"x": 1}), Place("n", "b", 1)).encode(3, 3)
    assert change[0] in leaf
    crafted = leaf.replace(*change)
    assert reads(STANDALONE.decode_leaf, crafted) is reads(decode_leaf, crafted)


def reads(decode: object, leaf: bytes) -> bool:
    """Tell whether a reader takes these bytes; any way but a refusal is a failure of the test."""
    try:
        decode(leaf)  # type: ignore[operator]
    except (ValueError, RecursionError, LookupError, TypeError, ProofRefused, AuditRefused):
        return False
    return True


ROTATED = sign_checkpoint(Checkpoint(SIGNER.name, 7, bytes(32)), [SIGNER, OTHER_SIGNER])


@pytest.mark.parametrize("signers", [[SIGNER], [OTHER_SIGNER], [SIGNER, OTHER_SIGNER]], ids=["old", "new", "both"])
def test_a_head_signed_by_two_keys_opens_with_either(signers: list[LogSigner]) -> None:
    """As while a log's key rotates; a flipped bit is judged alike, and may make one key a stranger's."""
    keys = [STANDALONE.read_key(signer.verifier.vkey) for signer in signers]
    verifiers = [signer.verifier for signer in signers]
    assert STANDALONE.open_checkpoint(ROTATED, keys) == (7, bytes(32))
    note = ROTATED.encode()
    for bit in random.Random(8).sample(range(8 * len(note)), 250):
        changed = bytearray(note)
        changed[bit // 8] ^= 1 << bit % 8
        text = changed.decode(errors="replace")
        ours, standalone = (
            takes(lambda note=text: open_checkpoint(note, verifiers)),
            takes(lambda note=text: STANDALONE.open_checkpoint(note, keys)),
        )
        assert ours is standalone, text


@pytest.mark.parametrize(
    "vkey",
    [
        SIGNER.verifier.vkey,
        SIGNER.verifier.vkey + "\n",
        SIGNER.verifier.vkey[:-2],
        SIGNER.verifier.vkey.replace("+", "-", 1),
        "a+00000000+" + SIGNER.verifier.vkey.split("+", 2)[2],
        "",
        "a+b+c",
    ],
)
def test_both_read_the_same_keys(vkey: str) -> None:
    """A name, the id that the key gives, the key."""
    assert takes(lambda: LogVerifier.from_vkey(vkey)) is takes(lambda: STANDALONE.read_key(vkey))


def takes(read: Callable[[], object]) -> bool:
    """Tell whether a reader takes what it is given; any way but a refusal is a failure of the test."""
    try:
        read()
    except (ValueError, ProofRefused, KeyRefused):
        return False
    return True


@given(number=st.integers(0, 10**12), width=st.integers(1, 256), level=st.sampled_from(["entries", 0, 3]))
def test_both_name_a_tile_alike(number: int, width: int, level: str | int) -> None:
    """In groups of three digits."""
    path = Tile(None if level == "entries" else int(level), number, width).path
    assert STANDALONE.tile_path(level, number, width) == f"tlog/{path}"


@given(old=st.integers(1, 300), more=st.integers(1, 300))
def test_a_tree_grows_by_subtrees_to_the_root_that_its_leaves_give(old: int, more: int) -> None:
    """Both verifiers, for any two sizes; a subtree that is changed, missing or too many does not lead there."""
    leaves = [leaf_hash(str(number).encode()) for number in range(old + more)]
    edge, completed = EMPTY_EDGE.append(leaves)
    nodes = {(node.level, node.index): node.digest for node in completed} | {(0, i): d for i, d in enumerate(leaves)}
    growth = [nodes[place] for place in growth_coordinates(old, old + more)]
    assert grown_root(lambda *place: nodes[place], old, old + more, growth) == edge.root()
    for wrong in ([*growth[:-1], bytes(32)], growth[:-1], [*growth, bytes(32)]):
        with contextlib.suppress(ProofRefused):
            assert grown_root(lambda *place: nodes[place], old, old + more, wrong) != edge.root()
    tree = STANDALONE.Tree()
    for leaf in leaves[:old]:
        tree.append(leaf)
    tree.grow(old + more, growth)
    assert tree.root() == edge.root()


def test_the_file_is_short_and_stands_alone() -> None:
    """Fewer than 400 lines, the standard library only, no other file of the product beside it."""
    text = VERIFIER_FILE.read_text()
    assert len(text.splitlines()) < 400
    assert max(map(len, text.splitlines())) <= 120
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    assert imported <= sys.stdlib_module_names
    ast.parse(text, feature_version=(3, 9))


@pytest.mark.parametrize(
    "arguments", [[], ["absent"], ["pack"], ["pack", "--key", "absent"], ["pack", "--key", "junk"]]
)
def test_what_cannot_be_checked_is_neither_pass_nor_fail(honest: Path, tmp_path: Path, arguments: list[str]) -> None:
    """No key, no pack, no readable key: exit code 2 and one line."""
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "pack").symlink_to(honest / "pack")
    said = run_bare(VERIFIER_FILE, *arguments, cwd=tmp_path)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    assert "PASS" not in said.stdout


def test_it_runs_on_a_bare_python(honest: Path) -> None:
    """Isolated, without site packages, without an environment, from inside the pack; the copy is the file itself."""
    pack = honest / "pack"
    assert (pack / "verify.py").read_bytes() == VERIFIER_FILE.read_bytes()
    said = run_bare(Path("verify.py"), ".", "--key", str(honest / "auditor.vkey"), cwd=pack)
    assert (said.returncode, said.stdout.splitlines()[-1], said.stderr) == (0, "PASS", "")
    assert "a cut end would not show" in said.stdout


def test_an_old_pack_fails_against_a_newer_proof_that_was_kept(honest: Path, tmp_path: Path) -> None:
    """`index.proof` of a later pack is the checkpoint to keep."""
    key, kept = honest / "auditor.vkey", honest / "pack" / "index.proof"
    said = run_bare(VERIFIER_FILE, str(honest / "pack"), "--key", str(key), "--checkpoint", str(kept), cwd=tmp_path)
    assert said.returncode == 1
    assert "you kept a signed checkpoint of" in said.stdout


def run_bare(file: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the file as on a machine that has Python and nothing else."""
    return subprocess.run(
        [os.path.realpath(sys.executable), "-I", "-S", str(file), *arguments],
        cwd=cwd,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
