"""Why a model's text files cannot be used.

TokenizerRefused          the operator must change the model folder; nothing is served from it
└── TemplateRefused       the same, about the chat template alone
"""

from __future__ import annotations


class TokenizerRefused(Exception):
    """The tokenizer files cannot be used; `file` is the one at fault."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class TemplateRefused(TokenizerRefused):
    """The chat template uses something that is not on the list of allowed constructs."""

    def __init__(self, problem: str, *, line: int | None = None) -> None:
        super().__init__("chat_template", problem if line is None else f"line {line}: {problem}")
        self.line = line
