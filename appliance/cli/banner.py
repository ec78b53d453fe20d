"""What `cloister serve` prints: whose trust this is, where the API is, and two ways to ask that work when pasted."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.sample import MESSAGES

RULE = "=" * 78
DEVELOPMENT = (
    "DEVELOPMENT TRUST: this appliance made its own trust root and keeps the private\n"
    "keys beside it. It shows how everything works and protects nothing. Every record\n"
    "says so. Not for production."
)


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Proof that the whole walk works: an answer to the developer's key, over HTTP."""

    after_ms: int
    """From the call to the first piece of text."""
    answer: str
    receipt: str


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known once the API answers."""

    url: str
    model: str
    keys_file: Path
    log_key: Path
    new_keys: Mapping[str, str]
    """Role -> key, of the keys made by this start; empty when the state had them all."""
    first: FirstToken | None
    """None when the developer's key is not accepted any more: revoked, or expired."""


def ready_banner(ready: Ready) -> str:
    """Give the text to print."""
    parts = [RULE, DEVELOPMENT, RULE]
    if ready.new_keys:
        width = max(map(len, ready.new_keys))
        parts.append("API keys were made; this is the only time they are shown here:\n")
        parts.extend(f"  {role:<{width}}  {key}" for role, key in ready.new_keys.items())
        parts.append(f"\nUnder development trust they also stand in {ready.keys_file} (mode 0600).\n")
    parts += [
        f"Serving {ready.model} on {ready.url}",
        *_first_token_lines(ready.first),
        f"The log's public key: {ready.log_key}",
        "",
        "Ask it from a shell:",
        "",
        curl_line(ready),
        "",
        f"or from Python ({Path(sys.prefix) / 'bin' / 'python'} has `openai`):",
        "",
        snippet(ready),
        "",
        "Take the tour in a second terminal: .venv/bin/cloister demo",
        "Stop with Ctrl-C.",
    ]
    return "\n".join(parts)


def _first_token_lines(first: FirstToken | None) -> list[str]:
    if first is None:
        return [
            "No first token was asked for: the developer's key is revoked or has expired.",
            "The other keys work; for a new set, start with another CLOISTER_STATE_DIR.",
        ]
    return [
        f"The first token came back after {first.after_ms} ms: {first.answer!r}",
        f"Its receipt in the log: {first.receipt}",
    ]


def curl_line(ready: Ready) -> str:
    """One line that asks; it reads the key from its file, so that the key stays out of the shell's history."""
    read_key = f"""import json; print(json.load(open("{ready.keys_file}"))["developer"])"""
    body = json.dumps({"model": ready.model, "messages": MESSAGES, "temperature": 0})
    return (
        f"curl -s {ready.url}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-H \"Authorization: Bearer $(python3 -c '{read_key}')\" -d '{body}'"
    )


def snippet(ready: Ready) -> str:
    """Five lines that ask through the released `openai` package."""
    messages = json.dumps(MESSAGES)
    return "\n".join(
        (
            "import json, openai",
            f'key = json.load(open("{ready.keys_file}"))["developer"]',
            f'client = openai.OpenAI(base_url="{ready.url}/v1", api_key=key)',
            f'answer = client.chat.completions.create(model="{ready.model}", temperature=0, messages={messages})',
            "print(answer.choices[0].message.content)",
        )
    )
