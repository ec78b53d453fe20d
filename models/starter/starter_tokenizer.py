"""The starter's tokenizer: byte-level BPE trained on generated notes, five control tokens, a chat template.

Promise: every UTF-8 text round-trips; a number of up to three digits is one token, and a space before a
large letter or a digit is its own, so a name or tag has the same tokens wherever it stands and can be copied; no
message text ever becomes a control token, because the template breaks every `<|` in it.
Never: adds a token on its own; `<|bos|>` comes from the template.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from plant_conversations import Message, draw_conversation, draw_talk
from plant_notes import NoteShape
from plant_split import Side
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BOS, SYSTEM, USER, ASSISTANT, END = CONTROL_TOKENS = (
    "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)  # fmt: skip
VOCAB_SIZE = 2304
_NUMBER_REPEATS = 150
# Notes in words weigh more than JSON here: the merges are for reading.
_LOG_EXTRACTION_SHARE = 0.35
MAX_POSITIONS = 2048

# Words of small letters take their space with them; everything that gets copied does not.
_PIECES = r" ?\p{Ll}+|\p{Lu}\p{L}*|\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s"

CHAT_TEMPLATE = """\
{{- '<|bos|>' -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('the starter knows the roles system, user and assistant only') -}}
{%- endif -%}
{%- if message['content'] is not string -%}
{{- raise_exception('the starter reads text content only') -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'].replace('<|', '< |') -}}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def train_tokenizer(seed: int, num_conversations: int = 4000) -> Tokenizer:
    """Learn the merges from that many training conversations."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed, num_conversations), trainer)
    return tokenizer


def _corpus(seed: int, num_conversations: int) -> Iterator[str]:
    """Yield the text to learn merges from: every number often enough to become one token, then conversations."""
    numbers = " ".join(str(number).zfill(width) for width in (2, 3) for number in range(10**width))
    yield from [numbers] * _NUMBER_REPEATS
    for row in range(num_conversations):
        rng = random.Random(f"tokenizer:{seed}:{row}")
        conversation = (
            draw_talk(rng)
            if row % 8 == 0
            else draw_conversation(rng, NoteShape(Side.TRAIN), 8, log_extraction_share=_LOG_EXTRACTION_SHARE)
        )
        for message in conversation.messages:
            yield message["content"]


def control_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a control token."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}: it is not the starter's")
    return found


def chat_ids(tokenizer: Tokenizer, messages: tuple[Message, ...] | list[Message]) -> list[int]:
    """Encode a conversation as the chat template does, ready for the assistant to speak."""
    text = BOS
    for message in messages:
        text += f"<|{message['role']}|>{message['content'].replace('<|', '< |')}{END}"
    ids: list[int] = tokenizer.encode(text + ASSISTANT, add_special_tokens=False).ids
    return ids


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": END,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_POSITIONS,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
