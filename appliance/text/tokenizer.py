"""A model's tokenizer, made from verified bytes: text -> token ids -> text, and conversations -> token ids.

Invariants:
- It is given bytes and opens nothing; no hub, no cache, no path.
- A text never becomes a control token.  For encoding, every control token is renamed to a name that holds a nonce drawn
  at load, so no text can spell one; the chat template's own control tokens are written under those names.  Should a
  vocabulary produce a control token from plain text by itself, the text is refused.
- Control tokens are all tokens flagged `special`, and every added token that the chat template writes.
- For ordinary text the ids equal those of `transformers` for the same files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from appliance.errors import BadRequest
from appliance.inference import Message
from appliance.text.chat_template import ChatTemplate
from appliance.text.control_tokens import ConversationRenderer
from appliance.text.errors import TokenizerRefused
from appliance.text.vocabulary import AddedToken, Vocabulary, added_tokens

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
)
"""What is read here, by name in the model folder; only the first is indispensable."""
_TEMPLATE_CONSTANTS = ("bos_token", "eos_token", "pad_token", "unk_token")


class ModelTokenizer:
    """One model's tokenizer.  Immutable after load; safe to use from several threads."""

    def __init__(self, files: Mapping[str, bytes], *, nonce: str) -> None:
        """Load.

        Args:
            files: name in the model folder -> verified bytes; of `TOKENIZER_FILES` those that exist.
            nonce: at least 16 characters that no client can guess, drawn for this load.

        Raises:
            TokenizerRefused: the files cannot be used; the message names the file.
        """
        assert len(nonce) >= 16, f"a nonce of {len(nonce)} characters can be guessed"  # noqa: PLR2004
        source = _parse(files, "tokenizer.json")
        config = _parse(files, "tokenizer_config.json", required=False)
        plain = _load(source)
        added = _checked_added_tokens(source, plain)
        template = _template_source(files, config)
        control = tuple(token for token in added if token.special or _is_written_by(template, token))
        self._vocabulary = Vocabulary.build(source, plain.get_vocab(with_added_tokens=True))
        self._names = {token.content: f"<|{nonce}|{token.id}|>" for token in control}
        self._encoder = _load(_renamed(source, self._names))
        self._original_ids = _original_ids(added, self._names, self._encoder)
        self._from_text_refused = _control_ids_in_model(plain, source, control)
        self._prefix, self._suffix = _affixes(plain)
        self.special_token_ids = frozenset(token.id for token in control)
        """Control tokens: no text and no client sets them."""
        self.eos_token_ids = _eos_token_ids(files, config, plain)
        """Tokens by which the model ends its answer."""
        self.vocab_size = len(self._vocabulary.token_bytes)
        """Ids are below this; the model's own output may be wider."""
        self._renderer = (
            None
            if template is None
            else ConversationRenderer(
                ChatTemplate(template, _template_constants(config)),
                special=[token.content for token in control if token.special],
                unflagged=[token.content for token in control if not token.special],
            )
        )

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Encode a text as it stands; what looks like a control token in it is text.

        Args:
            text: any Unicode text.
            add_special_tokens: put the tokens around it that the model expects around a text, such as BOS.

        Raises:
            BadRequest: this vocabulary can write the text only with a control token.
        """
        ids = self._encode(text, "prompt")
        return [*self._prefix, *ids, *self._suffix] if add_special_tokens else ids

    def encode_conversation(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """Encode a conversation by the model's chat template.

        Raises:
            BadRequest: there is no template, it refuses the conversation, or the messages would forge control tokens.
        """
        pieces = self._required_renderer().render(messages, add_generation_prompt=add_generation_prompt)
        text = "".join(self._names[piece.text] if piece.is_control else piece.text for piece in pieces)
        return self._encode(text, "messages")

    def decode(self, token_ids: Sequence[int]) -> str:
        """Give a whole text back; control tokens show their names, bytes that are no character U+FFFD."""
        text = b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")
        return text[1:] if self._vocabulary.drops_first_space and text.startswith(" ") else text

    def decode_output(self, token_ids: Sequence[int]) -> str:
        """Give the text that follows a prompt: special tokens add nothing, and a space before the first word stays."""
        return b"".join(map(self.output_bytes, token_ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Give one token's bytes: a control token's name, and nothing for an id without a token."""
        table = self._vocabulary.token_bytes
        return table[token_id] if 0 <= token_id < len(table) else b""

    def output_bytes(self, token_id: int) -> bytes:
        """Give what one token adds to an answer."""
        return b"" if token_id in self._vocabulary.special_ids else self.token_bytes(token_id)

    def token_text(self, token_id: int) -> str:
        """Give one token as text by itself; U+FFFD stands for a part of a character."""
        return self.token_bytes(token_id).decode(errors="replace")

    def _encode(self, text: str, param: str) -> list[int]:
        # The batch call gives other threads their turn; the single one would stop them all until it is done.
        ids: list[int] = self._encoder.encode_batch_fast([text], add_special_tokens=False)[0].ids
        if not self._from_text_refused.isdisjoint(ids):
            raise BadRequest(
                "the prompt has text that this model's tokenizer can only write as a control token; change it",
                code="control_token",
                param=param,
            )
        original = self._original_ids
        return [original.get(token_id, token_id) for token_id in ids]

    def _required_renderer(self) -> ConversationRenderer:
        if self._renderer is None:
            raise BadRequest(
                "this model has no chat template; use /v1/completions", code="no_chat_template", param="messages"
            )
        return self._renderer


def _parse(files: Mapping[str, bytes], name: str, *, required: bool = True) -> dict[str, Any]:
    if name not in files and not required:
        return {}
    try:
        value = json.loads(files[name].decode())
    except KeyError:
        raise TokenizerRefused(name, "the model folder has no such file") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as failure:
        raise TokenizerRefused(name, "it is not JSON") from failure
    if not isinstance(value, dict):
        raise TokenizerRefused(name, "it is not a JSON object")
    return value


def _load(source: Mapping[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps(source, ensure_ascii=False))
    except Exception as failure:  # the library raises bare Exception for every fault of the file
        raise TokenizerRefused("tokenizer.json", "the tokenizers library cannot use it") from failure
    tokenizer.no_truncation()  # a saved limit would cut prompts without a word
    tokenizer.no_padding()
    return tokenizer


def _checked_added_tokens(source: Mapping[str, Any], plain: Tokenizer) -> tuple[AddedToken, ...]:
    added = added_tokens(source)
    for token in added:
        if not token.content:
            raise TokenizerRefused("tokenizer.json", f"added token {token.id} has no text")
        if plain.token_to_id(token.content) != token.id:
            raise TokenizerRefused("tokenizer.json", f"added token {token.id} has another id in the vocabulary")
    return added


def _is_written_by(template: str | None, token: AddedToken) -> bool:
    return template is not None and len(token.content.strip()) > 1 and token.content in template


def _renamed(source: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    entries = source.get("added_tokens") or ()
    return {
        **source,
        "added_tokens": [{**one, "content": names.get(one["content"], one["content"])} for one in entries],
    }


def _original_ids(added: Sequence[AddedToken], names: Mapping[str, str], encoder: Tokenizer) -> dict[int, int]:
    # A renamed token that stood in the model's vocabulary gets a new id behind it, which moves the ones after it.
    in_model = set(encoder.get_vocab(with_added_tokens=False).values())
    ids: dict[int, int] = {}
    for token in added:
        new = encoder.token_to_id(names.get(token.content, token.content))
        if new is None or new in ids or (token.content in names and new in in_model):
            raise TokenizerRefused("tokenizer.json", f"added token {token.id} cannot be told from another")
        ids[new] = token.id
    return {new: original for new, original in ids.items() if new != original}


def _control_ids_in_model(plain: Tokenizer, source: Mapping[str, Any], control: Sequence[AddedToken]) -> frozenset[int]:
    # Ids that the encoder can only give when the model itself made them out of plain text.  The unknown token is
    # what the model writes for text it does not know, and forges nothing.
    in_model = plain.get_vocab(with_added_tokens=False)
    model = source.get("model") or {}
    unknown = {in_model.get(model.get("unk_token") or ""), model.get("unk_id")}
    return frozenset(token.id for token in control if token.content in in_model and token.id not in unknown)


def _affixes(plain: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    bare: list[int] = plain.encode("a", add_special_tokens=False).ids
    whole: list[int] = plain.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    raise TokenizerRefused("tokenizer.json", "its post-processor does more than put tokens around a text")


def _eos_token_ids(files: Mapping[str, bytes], config: Mapping[str, Any], plain: Tokenizer) -> frozenset[int]:
    for name in ("generation_config.json", "config.json"):
        value = _parse(files, name, required=False).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in ids):
            raise TokenizerRefused(name, "eos_token_id is neither an id nor a list of ids")
        return frozenset(ids)
    eos = plain.token_to_id(_token_name(config.get("eos_token")) or "")
    return frozenset() if eos is None else frozenset({eos})


def _template_source(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        try:
            return files["chat_template.jinja"].decode()
        except UnicodeDecodeError as failure:
            raise TokenizerRefused("chat_template.jinja", "it is not UTF-8") from failure
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is None or isinstance(template, str):
        return template
    raise TokenizerRefused("tokenizer_config.json", "chat_template is not a text")


def _template_constants(config: Mapping[str, Any]) -> dict[str, str]:
    names = {key: _token_name(config.get(key)) for key in _TEMPLATE_CONSTANTS}
    return {key: name for key, name in names.items() if name is not None}


def _token_name(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
