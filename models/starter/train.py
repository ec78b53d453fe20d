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
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from starter_first_weights import build_model
from starter_llama import Llama, LlamaShape, load_llama, save_llama
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
    """Everything that decides the weights besides the code, the seed and the weights it starts from."""

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


# The second course takes up the weights of the first with fresh momentum and a rate that rises again: by
# then the model reads notes, and what is left to learn (logs into JSON, which machine a fact belongs to)
# needs time more than anything else.
COURSES = (
    Course(
        stages=(
            Stage(400, 192, rows_per_step=32, min_entries=1, max_entries=2, extraction_rate=0.15,
                  drill_rate=0.12, log_extraction_share=0.35),
            Stage(2200, 256, rows_per_step=24, min_entries=1, max_entries=3, extraction_rate=0.3,
                  drill_rate=0.02, log_extraction_share=0.35),
            Stage(150, 512, rows_per_step=12, min_entries=1, max_entries=3, extraction_rate=0.3,
                  log_extraction_share=0.35),
        )
    ),
    Course(
        stages=(
            Stage(7500, 256, rows_per_step=24, min_entries=1, max_entries=3, extraction_rate=0.3, drill_rate=0.01),
            Stage(500, 512, rows_per_step=12, min_entries=1, max_entries=3, extraction_rate=0.3),
        ),
        matrix_rate=0.014,
        other_rate=0.0035,
    ),
)  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class CourseRun:
    """What one course did: kept in the record, and where a later course starts from."""

    course: Course
    tokens_seen: int
    final_answer_loss: float
    wall_s: int
    weights_sha256: str


def run_course(
    model: Llama, course: Course, first_row_step: int, seed: int, tokenizer: Tokenizer, folder: Path
) -> CourseRun:
    """Train the model through one course and write its weights; rows are those from `first_row_step` on."""
    muon = Muon([p for name, p in model.named_parameters() if _is_matrix(name)])
    others = [p for name, p in model.named_parameters() if not _is_matrix(name)]
    adam = torch.optim.AdamW(others, lr=course.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    started = time.monotonic()
    recent: deque[float] = deque(maxlen=100)
    tokens_seen = 0
    for step, rows in enumerate(_rows_ahead(course, first_row_step, tokenizer, seed)):
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
    return CourseRun(
        course=course,
        tokens_seen=tokens_seen,
        final_answer_loss=round(sum(recent) / len(recent), 5),
        wall_s=round(time.monotonic() - started),
        weights_sha256=_sha256(folder / "model.safetensors"),
    )


def train(
    seed: int, courses: tuple[Course, ...], shape: LlamaShape, tokenizer: Tokenizer, folder: Path, num_done: int = 0
) -> Iterator[CourseRun]:
    """Run the courses after the first `num_done`, whose weights stand in the folder."""
    model = load_llama(folder).train() if num_done else build_model(seed, shape)
    first_row_step = sum(course.num_steps for course in courses[:num_done])
    for course in courses[num_done:]:
        yield run_course(model, course, first_row_step, seed, tokenizer, folder)
        first_row_step += course.num_steps


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows_ahead(course: Course, first_row_step: int, tokenizer: Tokenizer, seed: int) -> Iterator[Rows]:
    """Yield the rows of each step; the next ones are drawn while torch works on these."""
    with ThreadPoolExecutor(max_workers=1) as drawer:
        following = drawer.submit(draw_rows, tokenizer, course.stage_at(0), seed, first_row_step)
        for step in range(course.num_steps):
            rows = following.result()
            following = drawer.submit(draw_rows, tokenizer, course.stage_at(step + 1), seed, first_row_step + step + 1)
            yield rows


def _finished_courses(record: Path, seed: int, folder: Path, tokenizer: Tokenizer) -> list[dict[str, object]]:
    """Return the recorded courses that the weights on disk have been through; SystemExit where they disagree."""
    kept = json.loads(record.read_text())
    runs: list[dict[str, object]] = kept["courses"]
    planned = [json.loads(json.dumps(asdict(course))) for course in COURSES]
    if kept["seed"] != seed or [run["course"] for run in runs] != planned[: len(runs)]:
        raise SystemExit(f"{record} is of another seed or of other courses: train from the start, without --resume")
    if runs[-1]["weights_sha256"] != _sha256(folder / "model.safetensors"):
        raise SystemExit(f"{folder}/model.safetensors is not what the last course in {record} wrote")
    if Tokenizer.from_file(str(folder / "tokenizer.json")).to_str() != tokenizer.to_str():
        raise SystemExit(f"{folder}/tokenizer.json is not what this seed gives: train from the start")
    return runs


def main() -> int:
    """Train all courses, or with --resume those that the record does not hold, and record each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "weights")
    parser.add_argument("--record", type=Path, default=HERE / "training_run.json")
    parser.add_argument("--device", default="2 cores of an AMD EPYC CPU", help="how the record names this machine")
    parser.add_argument("--resume", action="store_true", help="go on after the last course in the record")
    options = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    torch.use_deterministic_algorithms(mode=True)
    shape = LlamaShape()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(options.seed)
    runs = _finished_courses(options.record, options.seed, options.out, tokenizer) if options.resume else []
    save_tokenizer(tokenizer, options.out)
    for run in train(options.seed, COURSES, shape, tokenizer, options.out, len(runs)):
        runs.append(asdict(run))
        record = {
            "seed": options.seed,
            "shape": asdict(shape),
            "num_parameters": sum(p.numel() for p in load_llama(options.out).parameters()),
            "courses": runs,
            "torch": torch.__version__,
            "threads": NUM_THREADS,
            "device": options.device,
        }
        options.record.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
