"""Where each thing lies in the state folder.  Names only: nothing here opens a file.

var/                        mode 0700, every folder 0700, every file 0600
├── trust/                  root.<n>.json, and the fingerprint that pins the first
├── secrets/                pepper of the API keys, key-encryption key of the subject keys, their ids
├── log/                    audit.db (or `moved_to`, when the log lies in PostgreSQL), signing.key, verifier.vkey,
│                           halted.json; retiring.key, retiring.vkey, earlier.vkeys of a rotation
├── siem/                   <digest>.json, the cursor of one destination of a copy; made when there is one
├── anchors/                <witness>.checkpoint, the newest head that each witness cosigned; made when there is one
├── witness/                of other logs: witness.key, witness.vkey, <origin>.checkpoint cosigned last, evidence/
├── keys.db                 API keys, without secrets
├── subject_keys.db         what makes commitments provable; destroyed per subject
├── policy/<seq>/           files/..., signatures/<key id>.json; the highest seq is in force
├── models/<name>/          the signed folder with its model.sig
├── approvals/<name>/<seq>/ <key id>.json, one per approver; the highest seq is in force
├── dev/                    development trust only: the private keys, and keys.json with an API key per role
└── lock                    held by the one process that works on the state
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SEQ_DIGITS = 6


@dataclass(frozen=True, slots=True)
class StateLayout:
    """The paths below one state folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held while a process provisions or serves."""
        return self.root / "lock"

    @property
    def trust(self) -> Path:
        """Folder of the trust roots."""
        return self.root / "trust"

    def trust_root(self, version: int) -> Path:
        """One trust root."""
        return self.trust / f"root.{version}.json"

    @property
    def trust_pin(self) -> Path:
        """Fingerprint of the first root; in production it comes from outside the medium."""
        return self.trust / "root.fingerprint"

    @property
    def secrets(self) -> Path:
        """Folder of the secrets."""
        return self.root / "secrets"

    @property
    def pepper(self) -> Path:
        """32 bytes: the HMAC key over API key secrets."""
        return self.secrets / "pepper"

    @property
    def kek(self) -> Path:
        """32 bytes: wraps the subject keys."""
        return self.secrets / "kek"

    @property
    def secret_ids(self) -> Path:
        """JSON: an id of each secret that tells a damaged one from the right one and reveals neither."""
        return self.secrets / "ids.json"

    @property
    def log(self) -> Path:
        """Folder of the audit log."""
        return self.root / "log"

    @property
    def audit_db(self) -> Path:
        """The log."""
        return self.log / "audit.db"

    @property
    def log_moved_to(self) -> Path:
        """Names the PostgreSQL database that holds the log instead of `audit_db`."""
        return self.log / "moved_to"

    @property
    def halt_note(self) -> Path:
        """Why the log of the last run halted; blank where it did not."""
        return self.log / "halted.json"

    @property
    def log_signing_key(self) -> Path:
        """Ed25519 private key, PEM."""
        return self.log / "signing.key"

    @property
    def log_vkey(self) -> Path:
        """The log's verifier key: what an auditor takes home."""
        return self.log / "verifier.vkey"

    def siem_cursor(self, digest: str) -> Path:
        """How far one destination of a copy has come."""
        return self.root / "siem" / f"{digest}.json"

    @property
    def log_retiring_key(self) -> Path:
        """The signing key before, while a rotation overlaps."""
        return self.log / "retiring.key"

    @property
    def log_retiring_vkey(self) -> Path:
        """Its public half."""
        return self.log / "retiring.vkey"

    @property
    def log_rotation(self) -> Path:
        """Folder of a rotation that is half done; there only between two renames."""
        return self.log / "rotation"

    @property
    def log_earlier_vkeys(self) -> Path:
        """Public keys that sign no more, one a line, oldest first."""
        return self.log / "earlier.vkeys"

    @property
    def witness(self) -> Path:
        """Folder of this appliance as a witness of other logs."""
        return self.root / "witness"

    @property
    def witness_key(self) -> Path:
        """Ed25519 private key that cosigns, PEM."""
        return self.witness / "witness.key"

    @property
    def witness_vkey(self) -> Path:
        """Its public half."""
        return self.witness / "witness.vkey"

    @property
    def anchors(self) -> Path:
        """Folder of the heads that witnesses cosigned."""
        return self.root / "anchors"

    @property
    def subject_keys_db(self) -> Path:
        """The subject keys."""
        return self.root / "subject_keys.db"

    @property
    def keys_db(self) -> Path:
        """The API keys."""
        return self.root / "keys.db"

    @property
    def policy(self) -> Path:
        """Folder of the policy bundles."""
        return self.root / "policy"

    def policy_files(self, seq: int) -> Path:
        """Files of one bundle."""
        return self.policy / seq_name(seq) / "files"

    def policy_signatures(self, seq: int) -> Path:
        """Envelopes over one bundle."""
        return self.policy / seq_name(seq) / "signatures"

    @property
    def models(self) -> Path:
        """Folder of the models."""
        return self.root / "models"

    def model(self, name: str) -> Path:
        """The signed folder of one model."""
        return self.models / name

    def approvals(self, name: str) -> Path:
        """Folder of all approvals of one model."""
        return self.root / "approvals" / name

    def approval(self, name: str, seq: int) -> Path:
        """Envelopes of one approval."""
        return self.approvals(name) / seq_name(seq)

    @property
    def dev(self) -> Path:
        """Folder that exists under development trust only."""
        return self.root / "dev"

    @property
    def dev_keys(self) -> Path:
        """JSON: role -> API key in the clear."""
        return self.dev / "keys.json"

    def dev_signing_key(self, holder: str) -> Path:
        """Private key of one development holder, PEM."""
        return self.dev / f"{holder}.pem"


def seq_name(seq: int) -> str:
    """The folder name of a sequence number."""
    return f"{seq:0{_SEQ_DIGITS}d}"


def parse_seq_name(name: str) -> int | None:
    """The sequence number of a folder name; None for any other name."""
    return int(name) if name.isascii() and name.isdigit() and seq_name(int(name)) == name and int(name) > 0 else None
