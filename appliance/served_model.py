"""The model that is being served, as the walk needs it: verified identity, text tools and limits."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.text.tokenizer import ModelTokenizer
from policies.decision import TargetFacts


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One approved, verified and loaded model."""

    name: str
    root: str
    """Digest over all files of the signed folder: the model's identity in every record."""
    approved_until_us: int
    """UTC, microseconds: the approval's end.  After it policy sees a model that nobody approved."""
    max_label: int
    tenants: tuple[str, ...]
    tokenizer: ModelTokenizer
    max_model_len: int
    max_queue_len: int
    """Sequences that may wait for the engine; a request that asks for more never fits."""
    vocab_size: int
    dtype: str
    quantization: str
    """Of the weights, as the engine read the model's own configuration."""
    engine_build: str
    """What computed the answer: engine version, torch version and arithmetic."""
    created_s: int
    loaded_index: int
    """Entry of the log that says how this model was loaded, and what computes with it."""

    def target_at(self, now_us: int) -> TargetFacts:
        """Give the facts that policy sees; every one of them is signed."""
        return TargetFacts(
            kind="Model",
            id=self.name,
            attributes={
                "root": self.root,
                "approved": now_us < self.approved_until_us,
                "max_label": self.max_label,
                "tenants": self.tenants,
            },
        )

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint` of the API: changes when the weights or the engine do."""
        return f"cls_{self.root[:12]}_{self.engine_build[:8]}"
