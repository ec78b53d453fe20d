"""Write the model card from the records of the training run and of the exam.

Promise: every number in the card comes from one of the two records (the words stand in
`card_template.md`); the card names the digest of the weights that both speak of, and refuses to be
written where they differ.
Never: measures anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TEMPLATE = Path(__file__).resolve().parent / "card_template.md"


def _row(part: str, counts: dict[str, Any]) -> str:
    share = counts["right"] / counts["asked"]
    bar = f"{counts['bar']:.0%}" if "bar" in counts else "none"
    return f"| {part} | {counts['right']} | {counts['asked']} | {share:.1%} | {bar} |"


def card_text(result: dict[str, Any], run: dict[str, Any]) -> str:
    """Fill the card in."""
    courses = run["courses"]
    if result["weights_sha256"] != courses[-1]["weights_sha256"]:
        raise ValueError("the training record and the exam speak of different weights: train and evaluate again")
    shape = run["shape"]
    kinds = "\n".join(f"| {kind} | {c['right']} | {c['asked']} |" for kind, c in result["by_kind"].items())
    rows = [
        _row("questions", result["questions"]),
        _row("extractions from incident notes", result["extractions"]),
        _row("extractions from logs", result["log_extractions"]),
    ]
    return _TEMPLATE.read_text().format(
        digest=result["weights_sha256"],
        row_len=max(stage["row_len"] for course in courses for stage in course["course"]["stages"]),
        positions=shape["max_position_embeddings"],
        exam_seed=result["exam_seed"],
        exam_wall_s=result["wall_s"],
        rows="\n".join(rows),
        kinds=kinds,
        num_parameters=run["num_parameters"],
        layers=shape["num_hidden_layers"],
        width=shape["hidden_size"],
        heads=shape["num_attention_heads"],
        kv_heads=shape["num_key_value_heads"],
        head_dim=shape["head_dim"],
        vocab=shape["vocab_size"],
        seed=run["seed"],
        device=run["device"],
        threads=run["threads"],
        torch=run["torch"],
        wall_min=round(sum(course["wall_s"] for course in courses) / 60),
        tokens_seen=sum(course["tokens_seen"] for course in courses),
        loss=courses[-1]["final_answer_loss"],
    )


def write_card(path: Path, result: dict[str, Any], run: dict[str, Any]) -> None:
    """Write the card."""
    path.write_text(card_text(result, run))
