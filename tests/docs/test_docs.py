"""The documents say what the code does: every name a user can meet stands in them, and every name in them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from appliance.api.openai_chat import ChatCompletionRequest
from appliance.api.openai_completions import CompletionRequest
from appliance.audit_trail import Kind
from appliance.cli.main import app
from appliance.settings import PREFIX, Settings
from policies.actions import ACTIONS, ROLES

PACKAGES = ("appliance", "engine", "audit", "policies", "offline_bundle")


def _words(path: Path) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", path.read_text()))


def test_every_setting_is_documented_with_its_default(repository: Path):
    """docs/settings.md has a row for every setting and none that does not exist."""
    page = repository / "docs/settings.md"
    rows = dict(re.findall(r"^\| `(CLOISTER_\w+)` \| ([^|]+) \|", page.read_text(), re.MULTILINE))
    client = {"CLOISTER_API_KEY", "CLOISTER_URL"}
    assert set(rows) == {PREFIX + name.upper() for name in Settings.model_fields} | client
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, (int, float, str)):
            assert rows[PREFIX + name.upper()] == str(field.default), name


def test_every_event_kind_is_documented(repository: Path):
    """docs/audit.md lists exactly the kinds that the log can hold."""
    documented = {word for word in _words(repository / "docs/audit.md") if re.fullmatch(r"[a-z_]+:[a-z_]+", word)}
    assert documented == {kind.value for kind in Kind}


@pytest.mark.parametrize("body", [ChatCompletionRequest, CompletionRequest])
def test_every_request_field_is_documented(repository: Path, body: type[BaseModel]):
    """docs/api.md names every field of OpenAI's that we know, honoured or refused."""
    named = {word.partition(".")[0] for word in _words(repository / "docs/api.md")}
    assert not set(body.model_fields) - named


def test_every_error_code_is_documented(repository: Path):
    """docs/errors.md lists every code that the trunk can answer with."""
    codes: set[str] = set()
    for path in (repository / "appliance").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                codes.add(str(node.value.value))
    missing = codes - _words(repository / "docs/errors.md")
    assert not missing, f"docs/errors.md lacks {sorted(missing)}"


def test_every_action_and_role_is_documented(repository: Path):
    """docs/policy.md names every action and role of the schema."""
    assert set(ACTIONS) | set(ROLES) <= _words(repository / "docs/policy.md")


def _commands() -> list[str]:
    root = typer.main.get_command(app)

    def walk(command: object, path: str) -> list[str]:
        inner = getattr(command, "commands", None)
        if not inner:
            return [path]
        return [found for name, child in inner.items() for found in walk(child, f"{path} {name}")]

    return walk(root, "cloister")


@pytest.mark.parametrize("command", _commands())
def test_every_command_is_documented(repository: Path, command: str):
    """docs/commands.md names every verb of the command."""
    assert any(word.startswith(command) for word in _words(repository / "docs/commands.md")), command


def test_the_map_of_the_architecture_is_true(repository: Path):
    """Every symbol of the map is defined in the file that the map names."""
    rows = re.findall(r"^\| `(\w+)` \| `([\w/.]+)` \|$", (repository / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert rows
    for symbol, file in rows:
        names = {
            node.name
            for node in ast.parse((repository / file).read_text()).body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        }
        assert symbol in names, f"{symbol} is not in {file}"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_of_the_front_pages_lead_somewhere(repository: Path, page: str):
    """A relative link or a backticked path of a front page exists."""
    text = (repository / page).read_text()
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    paths = [word for word in re.findall(r"`([^`\n]+)`", text) if re.fullmatch(r"[\w.]+(/[\w.-]+)+/?", word)]
    ignored = ("var/", ".venv/", "/v1", "application/", "text/")
    for target in [*links, *paths]:
        if not target.startswith(ignored):
            assert (repository / target).exists(), f"{page} points at {target}"


def test_the_readme_has_exactly_two_set_up_commands(repository: Path):
    """The first code block of the README is `make serve` and `make test`, and nothing else."""
    block = re.search(r"```console\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    assert block is not None
    commands = [line.split("#")[0].strip() for line in block.group(1).splitlines()]
    assert commands == ["make serve", "make test"]


def test_no_dangerous_call_is_in_the_tree(repository: Path):
    """No pickle, no torch.load, no shell, no eval: scanners must find nothing (DESIGN 7.6)."""
    banned = re.compile(r"\b(pickle|torch\.(load|save)|marshal|shelve|eval|exec|os\.system)\b")
    for package in (*PACKAGES, "models", "benchmarks"):
        for path in (repository / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    assert not banned.search(ast.unparse(node)), path
                if isinstance(node, ast.Call):
                    assert not banned.match(ast.unparse(node.func) + "("), path
