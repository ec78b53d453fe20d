"""Train the starter model and its tokenizer from a seed: `.venv/bin/python models/starter/train.py`.

Promise: the same seed, torch build, thread count and kind of processor give the same weights; the
course (stages, rates, sizes) stands in this file, not in options.
Never: reads data (all rows are drawn here), never looks at the evaluation side, never uses the network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from starter_first_weights import build_model
from starter_llama import Llama, LlamaShape, save_llama
from starter_muon import Muon
from starter_rows import Rows, Stage, draw_rows
from starter_tokenizer import BOS, END, control_id, save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from torch.nn import functional as F  # noqa: N812 - torch's own spelling

HERE = Path(__file__).resolve().parent
NUM_THREADS = 2
REPORT_STEPS = 50
CHECKPOINT_STEPS = 250


@dataclass(frozen=True, slots=True)
class Course:
    """Everything that decides the weights besides the code and the seed."""

    stages: tuple[Stage, ...]
    matrix_rate: float = 0.02
    other_rate: float = 0.005
    warmup_steps: int = 60
    decay_share: float = 0.9
    # A little loss on what the user says lets the note's own regularities form features early.
    note_weight: float = 0.15

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def rate_at(self, step: int) -> float:
        """Share of the full learning rate: warm up, hold, fall linearly to nothing."""
        decay_from = self.num_steps * (1 - self.decay_share)
        rising = min(1.0, (step + 1) / self.warmup_steps)
        falling = min(1.0, (self.num_steps - step) / (self.num_steps - decay_from))
        return min(rising, falling)

    def stage_at(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


FULL_COURSE = Course(
    stages=(
        Stage(400, row_len=192, rows_per_step=32, min_entries=1, max_entries=2, extraction_rate=0.15, drill_rate=0.12),
        Stage(2200, row_len=256, rows_per_step=24, min_entries=1, max_entries=3, extraction_rate=0.3, drill_rate=0.02),
        Stage(150, row_len=512, rows_per_step=12, min_entries=1, max_entries=3, extraction_rate=0.3),
    )
)


def _is_matrix(name: str) -> bool:
    return name.endswith("proj.weight")


def loss_of(model: Llama, rows: Rows, note_weight: float) -> tuple[torch.Tensor, float]:
    """Return the weighted loss and the mean loss of answer tokens."""
    inputs, targets, answers = rows.ids[:, :-1], rows.ids[:, 1:], rows.answers[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, _ = model.hidden(inputs)
        # The vocabulary is a tenth of the cost: a quarter of the note's tokens teach as much as all.
        sampled = torch.zeros_like(answers)
        sampled[:, ::4] = True
        chosen = answers | sampled
        logits = model.logits(hidden[chosen])
    losses = F.cross_entropy(logits.float(), targets[chosen], reduction="none")
    spoken = answers[chosen]
    answer_loss = losses[spoken].mean()
    return answer_loss + note_weight * losses[~spoken].mean(), answer_loss.item()


def train(seed: int, course: Course, shape: LlamaShape, tokenizer: Tokenizer, folder: Path) -> dict[str, object]:
    """Run the course and write the weights; return what happened."""
    model = build_model(seed, shape)
    muon = Muon([p for name, p in model.named_parameters() if _is_matrix(name)])
    others = [p for name, p in model.named_parameters() if not _is_matrix(name)]
    adam = torch.optim.AdamW(others, lr=course.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    started = time.monotonic()
    recent: deque[float] = deque(maxlen=100)
    tokens_seen = 0
    for step, rows in enumerate(_rows_ahead(course, tokenizer, seed)):
        loss, answer_loss = loss_of(model, rows, course.note_weight)
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        share = course.rate_at(step)
        muon.step(course.matrix_rate * share)
        adam.param_groups[0]["lr"] = course.other_rate * share
        adam.step()
        tokens_seen += rows.ids.numel()
        recent.append(answer_loss)
        if (step + 1) % REPORT_STEPS == 0 or step + 1 == course.num_steps:
            seconds = time.monotonic() - started
            mean = sum(recent) / len(recent)
            print(f"step {step + 1}/{course.num_steps} answer loss {mean:.4f} {seconds:.0f} s", flush=True)
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == course.num_steps:
            save_llama(model, folder, control_id(tokenizer, BOS), control_id(tokenizer, END))
    return {
        "seed": seed,
        "course": asdict(course),
        "shape": asdict(shape),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "tokens_seen": tokens_seen,
        "final_answer_loss": round(sum(recent) / len(recent), 5),
        "wall_s": round(time.monotonic() - started),
        "torch": torch.__version__,
        "threads": NUM_THREADS,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }


def _rows_ahead(course: Course, tokenizer: Tokenizer, seed: int) -> Iterator[Rows]:
    """Yield the rows of each step; the next ones are drawn while torch works on these."""
    with ThreadPoolExecutor(max_workers=1) as drawer:
        following = drawer.submit(draw_rows, tokenizer, course.stage_at(0), seed, 0)
        for step in range(course.num_steps):
            rows = following.result()
            following = drawer.submit(draw_rows, tokenizer, course.stage_at(step + 1), seed, step + 1)
            yield rows


def main() -> int:
    """Train the full course (or the share of it that is asked for) and record the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "weights")
    parser.add_argument("--record", type=Path, default=HERE / "training_run.json")
    parser.add_argument("--device", default="2 cores of an AMD EPYC CPU", help="how the record names this machine")
    parser.add_argument("--share", type=float, default=1.0, help="share of the course's steps, to try things out")
    options = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    torch.use_deterministic_algorithms(mode=True)
    course = FULL_COURSE
    if options.share != 1.0:
        stages = tuple(replace(s, steps=max(1, int(s.steps * options.share))) for s in course.stages)
        course = replace(course, stages=stages)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(options.seed)
    save_tokenizer(tokenizer, options.out)
    record = train(options.seed, course, LlamaShape(), tokenizer, options.out)
    record["device"] = options.device
    options.record.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({k: v for k, v in record.items() if k not in ("course", "shape")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
