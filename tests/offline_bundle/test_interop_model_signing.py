"""Both directions against the released `model_signing` tool; the committed golden files prove one of them without it.

The tool and its 38 distributions are no dependency of ours.  To run these tests, install `model-signing==1.1.1` and
`pyOpenSSL` into an environment of their own and name the command in CLOISTER_MODEL_SIGNING.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from signed_folders import differing_files, sign_model

from offline_bundle.errors import DocumentRefused
from offline_bundle.keys import SigningKey
from offline_bundle.model_signature import sign_digests, verify_signature

TOOL = os.environ.get("CLOISTER_MODEL_SIGNING", "")
pytestmark = pytest.mark.skipif(not TOOL, reason="CLOISTER_MODEL_SIGNING does not name the released model_signing tool")
CURVES = pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)


class Released:
    """The released tool, its key files and one model folder."""

    def __init__(self, root: Path, folder: Path, key: SigningKey) -> None:
        self.folder = folder
        self.key = key
        self.signature = folder / "model.sig"
        self._private, self._public = root / "key.pem", root / "key.pub.pem"
        self._private.write_bytes(key.unsafe_private_pem())
        self._public.write_text(key.verifying_key.pem)

    def sign(self, *options: str) -> None:
        """Sign with the tool; it must succeed."""
        done = self._run("sign", "key", *options, "--private_key", str(self._private))
        assert done.returncode == 0, done.stdout + done.stderr

    def verify(self, *options: str) -> tuple[bool, str]:
        """Verify with the tool: whether it accepts, and what it says."""
        done = self._run("verify", "key", *options, "--public_key", str(self._public))
        return done.returncode == 0, done.stdout + done.stderr

    def _run(self, verb: str, kind: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [TOOL, verb, kind, str(self.folder), "--signature", str(self.signature), *options]
        environment = {"PATH": os.defpath, "HOME": str(self.folder.parent)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def released(tmp_path: Path, folder: Path) -> Callable[[ec.EllipticCurve], Released]:
    """The tool with a key on a given curve."""
    (folder / "ünïcode ☃.txt").write_bytes(b"u")
    return lambda curve: Released(tmp_path, folder, SigningKey(ec.generate_private_key(curve)))


@CURVES
def test_the_tool_accepts_what_we_sign(
    released: Callable[[ec.EllipticCurve], Released], curve: ec.EllipticCurve
) -> None:
    """Names in conflicting orders, dotfiles, caches, empty files and Unicode included."""
    tool = released(curve)
    tool.signature.write_bytes(sign_model(tool.folder, tool.key))
    assert tool.verify() == (True, "Verification succeeded\n")


@CURVES
def test_we_accept_what_the_tool_signs(
    released: Callable[[ec.EllipticCurve], Released], curve: ec.EllipticCurve
) -> None:
    """With its default options; the root is the one that we compute."""
    tool = released(curve)
    tool.sign()
    theirs = verify_signature(tool.signature.read_bytes(), [tool.key.verifying_key])
    assert differing_files(theirs, tool.folder) == []
    tool.signature.unlink()
    ours = verify_signature(sign_model(tool.folder, tool.key), [tool.key.verifying_key])
    assert (ours.root, list(ours.files.items())) == (theirs.root, list(theirs.files.items()))


def test_both_refuse_a_changed_and_a_missing_file(released: Callable[[ec.EllipticCurve], Released]) -> None:
    """The agreement that matters most."""
    tool = released(ec.SECP256R1())
    tool.signature.write_bytes(sign_model(tool.folder, tool.key))
    manifest = verify_signature(tool.signature.read_bytes(), [tool.key.verifying_key])
    path = tool.folder / "config.json"
    path.write_bytes(b"[]")
    assert not tool.verify()[0]
    assert differing_files(manifest, tool.folder) == ["config.json"]
    path.unlink()
    assert not tool.verify()[0]
    assert differing_files(manifest, tool.folder) == ["config.json"]


def test_the_tool_accepts_a_signature_without_the_optional_parts(
    released: Callable[[ec.EllipticCurve], Released],
) -> None:
    """And so do we."""
    tool = released(ec.SECP256R1())
    bundle = json.loads(sign_model(tool.folder, tool.key))
    del bundle["verificationMaterial"]["tlogEntries"]
    del bundle["dsseEnvelope"]["signatures"][0]["keyid"]
    tool.signature.write_text(json.dumps(bundle))
    assert tool.verify()[0]
    assert verify_signature(tool.signature.read_bytes(), [tool.key.verifying_key])


def test_we_find_the_file_in_git_that_the_tool_overlooks(released: Callable[[ec.EllipticCurve], Released]) -> None:
    """Where we are stricter on purpose; if the tool begins to refuse, this test tells us."""
    tool = released(ec.SECP256R1())
    tool.sign()
    (tool.folder / ".git").mkdir()
    (tool.folder / ".git" / "payload").write_bytes(b"x")
    manifest = verify_signature(tool.signature.read_bytes(), [tool.key.verifying_key])
    assert tool.verify()[0]
    assert differing_files(manifest, tool.folder) == [".git/payload"]


def test_we_refuse_the_ignored_path_that_the_tool_honours(released: Callable[[ec.EllipticCurve], Released]) -> None:
    """`--ignore-paths tokenizer.json`: the tool leaves a file unsigned, we refuse the signature."""
    tool = released(ec.SECP256R1())
    tool.sign("--ignore-paths", str(tool.folder / "tokenizer.json"))
    assert tool.verify()[0]
    with pytest.raises(DocumentRefused, match=r"tokenizer\.json"):
        verify_signature(tool.signature.read_bytes(), [tool.key.verifying_key])


def test_the_tool_cannot_exchange_a_signature_over_gits_files(
    released: Callable[[ec.EllipticCurve], Released],
) -> None:
    """Why signing refuses such a folder: the tool's own default verification fails on it."""
    tool = released(ec.SECP256R1())
    (tool.folder / ".gitattributes").write_bytes(b"x")
    tool.sign("--no-ignore-git-paths", "--ignore-paths", str(tool.signature))
    accepted, output = tool.verify()
    assert not accepted
    assert ".gitattributes" in output


def test_a_stranger_with_the_right_folder_convinces_neither(released: Callable[[ec.EllipticCurve], Released]) -> None:
    """Signed by a key that is not the trusted one."""
    tool = released(ec.SECP256R1())
    digests = verify_signature(sign_model(tool.folder, tool.key), [tool.key.verifying_key]).files
    tool.signature.write_bytes(sign_digests("tiny", digests, SigningKey.generate()))
    assert not tool.verify()[0]
