"""`cloister audit replay`: what it reads from files, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from appliance.cli.audit import replay as verb
from appliance.cli.client import ApplianceClient

TOLD = {
    "object": "replay",
    "index": 7,
    "verdict": "reproduced",
    "reason": None,
    "explanation": None,
    "differences": [],
    "difference": None,
    "num_runs": 1,
}
WHERE = {"choice": 1, "tokens": [4, 4], "character": 9, "finish": False}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hé"}], "stop": "x", "seed": 3}


class Answer:
    """What the appliance answers with."""

    def __init__(self, told: dict) -> None:
        self._told = told

    def json(self) -> dict:
        """Give it."""
        return self._told


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the verb against an appliance that says as told, and give what was asked of it."""
    monkeypatch.setenv("CLOISTER_API_KEY", "cls_dev_x")
    monkeypatch.setenv("CLOISTER_STATE_DIR", str(tmp_path))
    app = typer.Typer()
    app.command()(verb.replay)

    def ran(*arguments: str, told: dict = TOLD):
        asked: list[dict] = []

        def post(_self: ApplianceClient, path: str, body: dict) -> Answer:
            assert path == "/audit/replays"
            asked.append(body)
            return Answer(told)

        monkeypatch.setattr(ApplianceClient, "post", post)
        return CliRunner().invoke(app, arguments), asked

    return ran


def _file(folder: Path, content: object) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_request_s_body_becomes_the_committed_documents(run, tmp_path: Path):
    """Prompts and stop strings are read from it, all else is the record's."""
    ended, asked = run("7", "--request", _file(tmp_path, CHAT))
    assert ended.exit_code == 0, ended.output
    turns = [{"role": "user", "content": "Hé", "name": None}]
    assert asked == [{"index": 7, "prompts": [turns], "stop": ["x"]}]
    assert ended.output == "entry 7: REPRODUCED\n"


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ({"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]}, ["a", "b"]),
        ({"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}]}, ["a"]),
    ],
)
def test_an_answer_s_body_becomes_its_texts(run, tmp_path: Path, answer: dict, texts: list[str]):
    """In the order of the choices, of either dialect."""
    _, asked = run("7", "--prompt", _file(tmp_path, ["Once"]), "--answer", _file(tmp_path, answer))
    assert asked == [{"index": 7, "prompts": ["Once"], "outputs": texts}]


def test_documents_and_a_proposal_go_as_they_are(run, tmp_path: Path):
    """One JSON array per file; or the number of a proposal and no file."""
    files = [
        "--prompt",
        _file(tmp_path, [[1, 2]]),
        "--stop",
        _file(tmp_path, ["x"]),
        "--output",
        _file(tmp_path, ["y"]),
    ]
    _, asked = run("7", *files)
    assert asked == [{"index": 7, "prompts": [[1, 2]], "stop": ["x"], "outputs": ["y"]}]
    _, asked = run("7", "--unsealing", "9")
    assert asked == [{"index": 7, "unsealing": 9}]


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ({"differences": ["torch"]}, 0, "  although this differs from then: torch\n"),
        (
            {"verdict": "not_reproduced", "difference": WHERE},
            4,
            "entry 7: NOT REPRODUCED\n  choice 1 differs first at token 4, character 9\n",
        ),
        (
            {"verdict": "not_reproduced", "difference": {**WHERE, "tokens": [4, 7], "character": None}},
            4,
            "differs first at one of the tokens 4 to 7\n",
        ),
        ({"verdict": "not_reproduced", "difference": {**WHERE, "finish": True}}, 4, "same text and ended otherwise\n"),
        ({"verdict": "not_reproduced", "difference": dict.fromkeys(WHERE)}, 4, "where it differs cannot be told"),
        (
            {"verdict": "not_reproducible_here", "reason": "not_ended", "explanation": "it runs"},
            1,
            "entry 7: NOT REPRODUCIBLE HERE\n  not_ended: it runs\n",
        ),
    ],
)
def test_the_verdict_is_printed_and_decides_the_exit_code(run, told: dict, code: int, said: str):
    """0 reproduced, 4 not, 1 where nothing was said of the answer."""
    ended, _ = run("7", told={**TOLD, **told})
    assert ended.exit_code == code
    assert said in ended.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--request", "R", "--prompt", "P"],
        ["--answer", "A", "--output", "P"],
        ["--unsealing", "1", "--prompt", "P"],
        ["--prompt", "missing"],
        ["--prompt", "B"],
        ["--request", "P"],
        ["--answer", "P"],
    ],
)
def test_files_that_cannot_be_meant_are_wrong_usage(run, tmp_path: Path, arguments: list[str]):
    """Two sources of one thing, no file, no JSON, no request and no answer: 2, and nothing is asked."""
    files = {"R": CHAT, "P": ["Once"], "A": {"choices": []}, "B": "{"}
    paths = {name: _file(tmp_path, content) for name, content in files.items()}
    ended, asked = run("7", *(paths.get(argument, argument) for argument in arguments))
    assert ended.exit_code == 2, ended.output
    assert asked == []
