"""Have a recorded request run again: texts come from files, the verdict from the appliance and stands in its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.api.body import parse_json, validate
from appliance.api.openai_chat import ChatCompletionRequest
from appliance.api.openai_completions import CompletionRequest
from appliance.api.replays import ROUTE
from appliance.cli.audit.arguments import Index, Json
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import DONE_NOT, INTEGRITY, WRONG_USAGE, exits_cleanly, leave
from appliance.committed import prompt_content
from appliance.errors import ApplianceError
from appliance.settings import read_settings

MARGIN_S = 60
"""Beyond the appliance's own deadline for a replay."""
SHOWN = {
    "reproduced": "REPRODUCED",
    "not_reproduced": "NOT REPRODUCED",
    "not_reproducible_here": "NOT REPRODUCIBLE HERE",
}


@exits_cleanly
def replay(
    index: Index,
    prompt: Annotated[
        Path | None, typer.Option("--prompt", help="The prompts as they are committed to: one JSON array.")
    ] = None,
    stop: Annotated[Path | None, typer.Option("--stop", help="The stop strings: one JSON array.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="The choices' texts: one JSON array; tells a difference exactly.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option("--request", help="Instead of --prompt and --stop: the body as it was sent.")
    ] = None,
    answer: Annotated[
        Path | None, typer.Option("--answer", help="Instead of --output: the body as it came back, not streamed.")
    ] = None,
    unsealing: Annotated[
        int | None, typer.Option("--unsealing", min=0, help="Instead of texts: an approved proposal to unseal them.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Run a recorded request again and say whether it comes to the answer that the log commits to."""
    if request is not None and (prompt is not None or stop is not None):
        leave("--request holds prompts and stop strings; leave --prompt and --stop out", WRONG_USAGE)
    if answer is not None and output is not None:
        leave("--answer holds the texts; leave --output out", WRONG_USAGE)
    texts = (prompt, stop, output, request, answer)
    if unsealing is not None and any(file is not None for file in texts):
        leave("--unsealing takes the texts from the log; leave the files out", WRONG_USAGE)
    body: dict[str, Any] = {"index": index} if unsealing is None else {"index": index, "unsealing": unsealing}
    if request is not None:
        body |= _asked(request)
    else:
        body |= {name: _read(file) for name, file in (("prompts", prompt), ("stop", stop)) if file is not None}
    if output is not None:
        body["outputs"] = _read(output)
    elif answer is not None:
        body["outputs"] = _answered(answer)
    client = ApplianceClient("auditor", read_timeout_s=read_settings().replay_deadline_s + MARGIN_S)
    told = client.post(ROUTE, body).json()
    print(json.dumps(told, indent=2) if as_json else verdict_text(told))
    if told["verdict"] == "not_reproduced":
        leave("the recorded answer did not come again", INTEGRITY)
    if told["verdict"] != "reproduced":
        leave("nothing was said of the answer", DONE_NOT)


def verdict_text(told: Mapping[str, Any]) -> str:
    """Give a verdict for a terminal."""
    lines = [f"entry {told['index']}: {SHOWN[told['verdict']]}"]
    if told["reason"] is not None:
        lines.append(f"  {told['reason']}: {told['explanation']}")
    if told["differences"]:
        lines.append(f"  although this differs from then: {', '.join(told['differences'])}")
    if told["difference"] is not None:
        lines.append(f"  {_where(told['difference'])}")
    return "\n".join(lines)


def _where(difference: Mapping[str, Any]) -> str:
    if difference["choice"] is None:
        return "where it differs cannot be told: the record has no marks, and no text was brought"
    if difference["finish"]:
        return f"choice {difference['choice']} has the same text and ended otherwise"
    places = []
    if difference["tokens"] is not None:
        first, last = difference["tokens"]
        places.append(f"token {first}" if first == last else f"one of the tokens {first} to {last}")
    if difference["character"] is not None:
        places.append(f"character {difference['character']}")
    return f"choice {difference['choice']} differs first at {', '.join(places)}"


def _asked(file: Path) -> dict[str, Any]:
    """Give the committed documents of a request's body."""
    body = _read(file)
    is_chat = isinstance(body, dict) and "messages" in body
    try:
        wire = validate(ChatCompletionRequest, body) if is_chat else validate(CompletionRequest, body)
        request = wire.inference()
    except ApplianceError as refusal:
        leave(f"{file}: {refusal.message}", WRONG_USAGE)
    prompts = json.loads(prompt_content(request.prompts))
    return {"prompts": prompts, "stop": list(request.sampling.stop)} if request.sampling.stop else {"prompts": prompts}


def _answered(file: Path) -> list[str]:
    """Give the choices' texts of an answer's body."""
    body = _read(file)
    try:
        choices = sorted(body["choices"], key=lambda choice: int(choice["index"]))
        texts = [str(choice["message"]["content"] if "message" in choice else choice["text"]) for choice in choices]
    except (LookupError, TypeError, ValueError):
        leave(f"{file} is no answer of an appliance; --output takes the texts alone", WRONG_USAGE)
    return texts


def _read(file: Path) -> Any:  # noqa: ANN401 - parsed JSON
    if not file.is_file():
        leave(f"there is no file at {file}", WRONG_USAGE)
    try:
        return parse_json(file.read_bytes())
    except ApplianceError as refusal:
        leave(f"{file}: {refusal.message}", WRONG_USAGE)
