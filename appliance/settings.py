"""The one frozen settings object: read once from `CLOISTER_*`, unknown names refused, a bad value stops the start."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from appliance.keeping.retention_profiles import read_profiles
from audit.anchoring.http_post import HttpAddress
from audit.anchoring.syslog import SyslogAddress
from audit.checkpoint import LogVerifier
from audit.cosignature import CosignatureVerifier
from audit.errors import AuditRefused, KeyRefused
from audit.siem.destination import Destination

T = TypeVar("T")
PREFIX = "CLOISTER_"
CLIENT_VARIABLES = frozenset({"CLOISTER_API_KEY", "CLOISTER_URL"})
"""Read by the command's client verbs (`cloister demo`, `cloister audit`), never by the server."""


class SettingsRefused(Exception):
    """A setting is unknown or has a value that cannot be used; the message names it and the remedy."""


class WitnessSetting(BaseModel):
    """One witness that is asked to cosign this log's heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """Submission prefix; `/add-checkpoint` is added to it."""
    vkey: str
    key_file: Path | None = None
    ca_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        HttpAddress.from_url(url)
        return url

    @field_validator("vkey")
    @classmethod
    def _witness_key(cls, vkey: str) -> str:
        try:
            CosignatureVerifier.from_vkey(vkey)
        except KeyRefused as refusal:
            raise ValueError(str(refusal)) from refusal
        return vkey


class Settings(BaseSettings):
    """Everything an operator may choose.  Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on; loopback only until TLS is configured.")
    port: int = Field(default=8600, ge=1, le=65535, description="TCP port of the API.")
    state_dir: Path = Field(default=Path("var"), description="Folder of keys, log, policy and models; mode 0700.")
    starter_dir: Path = Field(
        default=Path(__file__).resolve().parents[1] / "models" / "starter" / "weights",
        description="Unsigned starter model that development trust signs and serves as `starter`.",
    )
    model: str = Field(default="starter", description="Name of the approved model to serve.")
    allowed_hosts: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description="Host headers that are answered, beside the listening address (a guard against DNS rebinding).",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="Arithmetic of the engine.")
    engine_threads: int = Field(default=0, ge=0, le=1024, description="CPU threads of the engine; 0: one per core.")
    kv_memory_bytes: int = Field(default=256 * 2**20, ge=2**20, description="Memory for the KV cache.")
    page_size: int = Field(default=16, ge=1, le=256, description="Tokens per KV page.")
    max_num_batched_tokens: int = Field(default=512, ge=16, le=65536, description="Token budget of one engine step.")
    max_num_sequences: int = Field(default=64, ge=1, le=4096, description="Sequences that run at once.")
    max_queue_len: int = Field(
        default=256,
        ge=1,
        le=65536,
        description="Sequences that may wait; one more gets 429, a request for more gets 400.",
    )
    max_body_bytes: int = Field(default=2 * 2**20, ge=1024, description="Largest request body.")
    max_header_bytes: int = Field(default=32 * 2**10, ge=4096, description="Largest request head.")
    body_deadline_s: float = Field(
        default=20.0, gt=0, description="A client must send its whole request within this time."
    )
    write_deadline_s: float = Field(
        default=30.0, gt=0, description="A client must take each part of the answer in this time."
    )
    drain_deadline_s: float = Field(
        default=20.0, ge=0, description="At stop, running requests may finish within this time."
    )
    replay_deadline_s: float = Field(
        default=600.0, gt=0, description="A replay of a recorded request must end within this time."
    )
    stall_limit_s: float = Field(
        default=60.0, gt=0, description="With work at hand, a step must finish within this time."
    )
    log_writer_url: str | None = Field(
        default=None, description="PostgreSQL log as the writer's role; without it: a SQLite file in the state folder."
    )
    log_reader_url: str | None = Field(default=None, description="The same log as the reader's role.")
    log_patience_s: float = Field(
        default=30.0, gt=0, description="A PostgreSQL server that went away is waited for this long."
    )
    min_free_bytes: int = Field(default=128 * 2**20, ge=0, description="Below this much free disk nothing is admitted.")
    anchor_directories: tuple[Path, ...] = Field(
        default=(), description="Folders on media that take each signed head; each holds a file `cloister-anchors`."
    )
    anchor_written_once: tuple[Path, ...] = Field(
        default=(), description="The same on media that can be written once: no file is ever replaced there."
    )
    anchor_syslog: tuple[str, ...] = Field(
        default=(), description="Collectors that take each signed head, e.g. `unix:/dev/log`; see anchors.md."
    )
    anchor_witnesses: tuple[WitnessSetting, ...] = Field(
        default=(), description="Witnesses that cosign each signed head: objects with `url` and `vkey`; see anchors.md."
    )
    anchor_interval_s: float = Field(default=60.0, gt=0, description="A head that moved leaves the box this often.")
    anchor_deadline_s: float = Field(default=10.0, gt=0, description="Each place must take a head in this time.")
    witness_logs: tuple[str, ...] = Field(
        default=(), description="Public keys of the logs that this appliance cosigns as a witness; see anchors.md."
    )
    siem_exports: tuple[str, ...] = Field(
        default=(), description="Where copies of the log go, e.g. `cef+tcp://10.0.0.5:601`; see siem.md."
    )
    siem_deadline_s: float = Field(
        default=10.0, gt=0, description="A destination must take a batch of leaves in this time."
    )
    siem_ca_file: Path | None = Field(
        default=None, description="PEM certificates that a `tls` destination is believed by; without it, the system's."
    )
    siem_file_bytes: int = Field(
        default=64 * 2**20, ge=2**20, description="A copy's file is turned over before it grows beyond this."
    )
    siem_file_count: int = Field(default=10, ge=0, le=1000, description="Full files of a copy that are kept.")
    retention_profiles: tuple[str, ...] = Field(
        default=("ai-act",),
        min_length=1,
        description="What decides how long entries and contents stay at least; the longest of the profiles named.",
    )
    export_dir: Path | None = Field(
        default=None, description="Folder with the exports that pruning relies on, such as a mounted medium."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Level of the operator's log."
    )

    @field_validator("anchor_directories", "anchor_written_once")
    @classmethod
    def _absolute_folders(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        if not all(folder.is_absolute() for folder in folders):
            raise ValueError("a folder of heads is named by its whole path")
        return _each_once(folders)

    @field_validator("anchor_syslog")
    @classmethod
    def _collectors(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for text in addresses:
            SyslogAddress.from_text(text)
        return _each_once(addresses)

    @field_validator("anchor_witnesses")
    @classmethod
    def _witnesses(cls, witnesses: tuple[WitnessSetting, ...]) -> tuple[WitnessSetting, ...]:
        _each_once(tuple(CosignatureVerifier.from_vkey(one.vkey).name for one in witnesses))
        return witnesses

    @field_validator("witness_logs")
    @classmethod
    def _log_keys(cls, vkeys: tuple[str, ...]) -> tuple[str, ...]:
        try:
            keys = tuple(LogVerifier.from_vkey(vkey) for vkey in vkeys)
        except KeyRefused as refusal:
            raise ValueError(str(refusal)) from refusal
        _each_once(keys)
        return vkeys

    @field_validator("siem_exports")
    @classmethod
    def _destinations(cls, siem_exports: tuple[str, ...]) -> tuple[str, ...]:
        for text in siem_exports:
            try:
                Destination.parse(text)
            except AuditRefused as refusal:
                raise ValueError(str(refusal)) from refusal
        if len(set(siem_exports)) != len(siem_exports):
            raise ValueError("a destination stands twice")
        return siem_exports

    @field_validator("retention_profiles")
    @classmethod
    def _known_profiles(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(read_profiles()))
        if unknown:
            raise ValueError(f"there is no profile {unknown[0]!r}; there are {', '.join(read_profiles())}")
        return names

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        if host == "localhost":
            return host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is None or not address.is_loopback or "%" in host:  # no URL names an interface
            raise ValueError("only a loopback address is served without TLS, e.g. 127.0.0.1")
        return str(address)

    @property
    def url_host(self) -> str:
        """The listening address as a URL and a Host header write it: IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def anchor_names(self) -> list[str]:
        """Where heads go, as it stands in the record of a start."""
        folders = (*self.anchor_directories, *self.anchor_written_once)
        return [*map(str, folders), *self.anchor_syslog, *(one.url for one in self.anchor_witnesses)]

    @property
    def served_hosts(self) -> frozenset[str]:
        """Host headers that are answered, in lower case: `allowed_hosts`, and always the listening address."""
        return frozenset(name.lower() for name in (*self.allowed_hosts, self.url_host))


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a place stands twice")
    return values


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsRefused: an unknown `CLOISTER_*` name or an unusable value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known | CLIENT_VARIABLES
    )
    if unknown:
        raise SettingsRefused(f"unknown setting {unknown[0]}: see docs/settings.md for the names that exist")
    try:
        return Settings()
    except SettingsError as refusal:
        raise SettingsRefused(f"{_named_in(refusal)}: its value is not JSON, for example '[\"localhost\"]'") from None
    except ValidationError as refusal:
        first = refusal.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else PREFIX + "?"
        raise SettingsRefused(f"{name}: {first['msg']}") from None


def _named_in(refusal: SettingsError) -> str:
    # The library gives the field in its message alone.
    named = [name for name in Settings.model_fields if f'"{name}"' in str(refusal)]
    return PREFIX + (named[0].upper() if named else "?")
