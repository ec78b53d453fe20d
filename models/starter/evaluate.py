"""Examine the starter model on what it was never shown: `.venv/bin/python models/starter/evaluate.py`.

Promise: prints right answers per kind of question and exits 1 below a bar; with `--write` the result,
with a digest of the weights it speaks of, goes to evaluation.json, the model card and samples.json.
Never: changes weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from starter_card import write_card
from starter_decode import answer_all, load_folder
from starter_exam import (
    EXAM_SEED,
    EXTRACTION_BAR,
    QUESTION_BAR,
    Case,
    extraction_cases,
    is_right,
    log_extraction_cases,
    question_cases,
)
from starter_samples import sample_cases

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Marked:
    """A case and what the model said to it."""

    case: Case
    said: str

    @property
    def right(self) -> bool:
        """Whether it was the right answer."""
        return is_right(self.case, self.said)


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights file."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def examine(folder: Path, cases: list[Case]) -> list[Marked]:
    """Let the model answer every case."""
    model, tokenizer = load_folder(folder)
    said = answer_all(model, tokenizer, [list(case.messages) for case in cases])
    return [Marked(case, answer) for case, answer in zip(cases, said, strict=True)]


def result_of(
    folder: Path, questions: list[Marked], extractions: list[Marked], log_extractions: list[Marked], wall_s: float
) -> dict[str, object]:
    """Condense the marks into what evaluation.json says."""
    asked = Counter(marked.case.kind for marked in questions)
    right = Counter(marked.case.kind for marked in questions if marked.right)
    num_right = sum(right.values())
    num_extracted = sum(marked.right for marked in extractions)
    passed = num_right >= QUESTION_BAR * len(questions) and num_extracted >= EXTRACTION_BAR * len(extractions)
    return {
        "weights_sha256": weights_digest(folder),
        "exam_seed": EXAM_SEED,
        "questions": {"asked": len(questions), "right": num_right, "bar": QUESTION_BAR},
        "extractions": {"asked": len(extractions), "right": num_extracted, "bar": EXTRACTION_BAR},
        "log_extractions": {"asked": len(log_extractions), "right": sum(marked.right for marked in log_extractions)},
        "by_kind": {kind: {"asked": asked[kind], "right": right[kind]} for kind in sorted(asked)},
        "passed": passed,
        "wall_s": round(wall_s, 1),
    }


def main() -> int:
    """Run the whole exam."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE / "weights")
    parser.add_argument("--write", action="store_true", help="record the result beside the weights")
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N", help="print that many wrong answers")
    parser.add_argument("--exam-seed", type=int, default=EXAM_SEED, help="another held-out draw (not recorded)")
    options = parser.parse_args()
    torch.set_num_threads(2)
    started = time.monotonic()
    questions = examine(options.folder, question_cases(seed=options.exam_seed))
    extractions = examine(options.folder, extraction_cases(seed=options.exam_seed))
    log_extractions = examine(options.folder, log_extraction_cases(seed=options.exam_seed))
    result = result_of(options.folder, questions, extractions, log_extractions, time.monotonic() - started)
    print(json.dumps(result, indent=2))
    for marked in [marked for marked in questions + extractions + log_extractions if not marked.right][
        : options.show_wrong
    ]:
        print(f"\n[{marked.case.kind}] {marked.case.messages[0]['content']}\n... {marked.case.messages[-1]['content']}")
        print(f"said:  {marked.said}\nright: {marked.case.answer}")
    if options.write and options.exam_seed == EXAM_SEED:
        (HERE / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
        samples = [marked for marked in examine(options.folder, sample_cases()) if marked.right]
        written = [{"messages": list(m.case.messages), "answer": m.case.answer} for m in samples]
        (HERE / "samples.json").write_text(json.dumps(written, indent=2) + "\n")
        write_card(options.folder / "README.md", result, json.loads((HERE / "training_run.json").read_text()))
        print(f"wrote evaluation.json, the card and {len(written)} samples of {len(sample_cases())}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
