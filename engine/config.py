"""The engine's own frozen configuration: everything it may know about the machine and the model.

The engine receives paths, digests and sizes.  It never learns of users, policies, HTTP or the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file of the model folder and the SHA-256 its bytes must have."""

    name: str
    """POSIX path relative to the model folder."""
    sha256: str
    """64 lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What one engine process serves and within which bounds."""

    model_dir: str
    """Absolute path of the model folder."""
    file_digests: tuple[FileDigest, ...]
    """Expected digests of every file the engine reads; a file that is not named here is never opened."""
    dtype: DType = "float32"
    page_size: int = 16
    """Tokens per KV page."""
    num_pages: int = 0
    """KV pages; 0 means: as many as fit into `kv_memory_bytes`."""
    kv_memory_bytes: int = 256 * 2**20
    max_num_batched_tokens: int = 512
    """Token budget of one step, prefill and decode together."""
    max_num_sequences: int = 64
    """Sequences that may run at once."""
    max_queue_len: int = 256
    """Requests that may wait in the service; one more is refused."""
    max_model_len: int = 0
    """Longest sequence in tokens, prompt and output; 0 means the model's own `max_position_embeddings`."""
    enable_prefix_cache: bool = True
    num_threads: int = 0
    """Intra-op threads of torch; 0 leaves torch's default."""
