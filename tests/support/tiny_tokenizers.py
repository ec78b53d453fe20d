"""Small tokenizers of the three families that are served, trained on the spot, as the files of a model folder."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = (
    "The pump in hall 3 stopped at 14:05 and was started again by the night shift.",
    "Die Pumpe in Halle 3 blieb um 14:05 stehen; die Nachtschicht hat sie neu gestartet.",
    "Насос в третьем зале остановился. 三号厅的泵停了。 ポンプが止まった。 مضخة القاعة الثالثة",  # noqa: RUF001 - it is Russian
    "<|im_start|> is a token and so is </s>; think about <think> and [INST] as plain words.",
    "   indented\n\n\tand tabbed\r\nlines  with   runs of spaces \n",
) * 4
CHATML = (
    "{%- for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
THINKING = (
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
)
"""Leaves the thinking out of earlier answers, as templates of reasoning models do."""
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('only user and assistant turns') }}{% endif %}{% endfor %}"
)
Files = dict[str, bytes]


def _files(tokenizer: Tokenizer, template: str, config: dict[str, object], eos: object) -> Files:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "chat_template": template,
        **config,
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "generation_config.json": json.dumps({"eos_token_id": eos}).encode(),
    }


@cache
def byte_level_files() -> Files:
    """Qwen's family: byte-level BPE, ChatML, a `<think>` that is an added token but not flagged special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in ("<think>", "</think>", "<table>")])
    ends = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    return _files(tokenizer, CHATML, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, ends)


@cache
def byte_fallback_files() -> Files:
    """Llama 2's family: BPE with byte fallback, `▁` for spaces, control tokens inside the model's own vocabulary."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=640, show_progress=False, special_tokens=pieces, limit_alphabet=80, max_token_length=12
    )
    tokenizer.train_from_iterator((text.replace(" ", "▁") for text in CORPUS), trainer)
    source = json.loads(tokenizer.to_str())
    source["added_tokens"] = [
        entry for entry in source["added_tokens"] if entry["id"] < 3
    ]  # bytes are no control tokens
    tokenizer = Tokenizer.from_str(json.dumps(source))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _files(tokenizer, BRACKETS, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, 2)


@cache
def unigram_files() -> Files:
    """T5's family: Unigram over Metaspace, whose own Viterbi search can write a control token out of plain text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _files(tokenizer, BRACKETS, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, [2])


FAMILIES = {"byte_level": byte_level_files, "byte_fallback": byte_fallback_files, "unigram": unigram_files}
