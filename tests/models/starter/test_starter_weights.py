"""The served folder: complete, small, as described, and good enough."""

import json
from pathlib import Path

import pytest
import torch
from evaluate import examine, weights_digest
from starter_card import card_text
from starter_decode import answer_all, load_folder
from starter_exam import EXTRACTION_BAR, QUESTION_BAR, extraction_cases, question_cases
from starter_llama import blocked_causal_attention
from starter_rows import Stage
from starter_samples import sample_cases
from starter_tokenizer import train_tokenizer
from train import Course, LlamaShape, train
from transformers import AutoModelForCausalLM, AutoTokenizer

STARTER = Path(__file__).parents[3] / "models" / "starter"
WEIGHTS = STARTER / "weights"
MAX_BYTES = 12_000_000


def _read(name):
    return json.loads((STARTER / name).read_text())


def test_the_folder_is_complete_and_small():
    """The folder holds what a server needs, nothing else, in at most 12 MB."""
    names = {path.name for path in WEIGHTS.iterdir()}
    assert names == {
        "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= MAX_BYTES


def test_card_record_and_exam_speak_of_these_weights():
    """The digest in every record is that of the weights, and the card is what the records make."""
    digest = weights_digest(WEIGHTS)
    result, run = _read("evaluation.json"), _read("training_run.json")
    assert result["weights_sha256"] == run["courses"][-1]["weights_sha256"] == digest
    assert (WEIGHTS / "README.md").read_text() == card_text(result, run)


def test_the_recorded_exam_is_the_whole_one():
    """The record is of 500 questions and 200 extractions, and says itself whether they passed."""
    result = _read("evaluation.json")
    asked, bars = ("questions", "extractions"), (QUESTION_BAR, EXTRACTION_BAR)
    assert [result[part]["asked"] for part in asked] == [500, 200]
    passed = all(result[part]["right"] >= bar * result[part]["asked"] for part, bar in zip(asked, bars, strict=True))
    assert result["passed"] is passed


def test_the_recorded_exam_meets_the_bars():
    """The recorded result is of the whole exam and passes."""
    result = _read("evaluation.json")
    assert result["passed"] is True
    assert result["questions"]["asked"] == 500
    assert result["questions"]["right"] >= QUESTION_BAR * 500
    assert result["extractions"]["asked"] == 200
    assert result["extractions"]["right"] >= EXTRACTION_BAR * 200


def test_a_card_of_other_weights_is_refused():
    """Records of two different models make no card."""
    result, run = _read("evaluation.json"), _read("training_run.json")
    with pytest.raises(ValueError, match="different weights"):
        card_text({**result, "weights_sha256": "0" * 64}, run)


def test_a_short_exam_agrees_with_the_record():
    """A held-out draw made here and now comes out as the record says, within what chance allows (three sigma)."""
    result = _read("evaluation.json")
    for part, cases in (
        ("questions", question_cases(count=60, seed=4)),
        ("extractions", extraction_cases(count=30, seed=4)),
    ):
        share = result[part]["right"] / result[part]["asked"]
        right = sum(marked.right for marked in examine(WEIGHTS, cases))
        spread = (len(cases) * share * (1 - share)) ** 0.5
        assert right >= len(cases) * share - 3 * spread, f"{part}: {right} of {len(cases)}, the record says {share:.0%}"


def test_every_published_sample_is_answered_rightly():
    """What samples.json promises, the weights say."""
    samples = _read("samples.json")
    model, tokenizer = load_folder(WEIGHTS)
    said = answer_all(model, tokenizer, [sample["messages"] for sample in samples])
    assert samples
    assert said == [sample["answer"] for sample in samples]


def test_the_samples_cover_most_of_what_was_hoped_for():
    """At least four of five hoped-for answers come out right."""
    assert len(_read("samples.json")) >= 0.8 * len(sample_cases())


def test_transformers_gives_the_same_logits():
    """The folder loads in transformers offline and means the same there."""
    theirs = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    ours, _ = load_folder(WEIGHTS)
    text = sample_cases()[0].messages[0]["content"]
    ids = torch.tensor([AutoTokenizer.from_pretrained(WEIGHTS)(text)["input_ids"]])
    with torch.inference_mode():
        hidden, _ = ours.hidden(ids)
        torch.testing.assert_close(ours.logits(hidden), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_blocked_attention_matches_reference():
    """The trainer's attention is torch's, at lengths that fill no block."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 77, 16), torch.randn(2, 2, 77, 16), torch.randn(2, 2, 77, 16)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(blocked_causal_attention(q, k, v, block_len=32), expected, atol=1e-5, rtol=1e-5)


SMALL_SHAPE = LlamaShape(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)
_STAGE = Stage(steps=3, row_len=48, rows_per_step=2, min_entries=1, max_entries=2, extraction_rate=0.1)
SHORT_COURSES = (Course((_STAGE,)), Course((_STAGE,), matrix_rate=0.01))


@pytest.fixture(scope="module")
def small_tokenizer():
    """Give a tokenizer that is learnt quickly."""
    return train_tokenizer(seed=1, num_conversations=60)


def test_training_repeats_from_its_seed(tmp_path, small_tokenizer):
    """Two short trainings from one seed write the same bytes; another seed writes others."""
    digests = []
    for run, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(run)
        folder.mkdir()
        list(train(seed, SHORT_COURSES, SMALL_SHAPE, small_tokenizer, folder))
        digests.append(weights_digest(folder))
    assert digests[0] == digests[1] != digests[2]


def test_a_training_resumed_after_a_course_is_the_whole_one(tmp_path, small_tokenizer):
    """Stopping between two courses and going on from the folder gives the bytes of a training without a stop."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    list(train(1, SHORT_COURSES, SMALL_SHAPE, small_tokenizer, whole))
    next(train(1, SHORT_COURSES, SMALL_SHAPE, small_tokenizer, stopped))
    list(train(1, SHORT_COURSES, SMALL_SHAPE, small_tokenizer, stopped, num_done=1))
    assert weights_digest(stopped) == weights_digest(whole)
