"""Why a policy bundle is refused.

PolicyError                 base; `hint` says what to do, for the one who must act
└── BundleRefused           author or security officer: nothing of this bundle is loaded
    ├── TextRefused         a file is too large, too deeply nested or not plain text; it was never parsed
    ├── PolicyRefused       one policy breaks a rule of ours or of the schema
    ├── SchemaRefused       the schema cannot be parsed or does not agree with `actions.ACTIONS`
    └── TableRefused        a table test cannot be read, or the policies contradict it

Deciding never raises: see `cedar.PolicyEngine.decide`.
"""

from __future__ import annotations


class PolicyError(Exception):
    """Base of this package's errors."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(f"{message}: {hint}")
        self.message = message
        self.hint = hint


class BundleRefused(PolicyError):
    """The bundle as a whole cannot be used; `file` names the place, empty when it is the whole."""

    def __init__(self, message: str, *, hint: str, file: str = "") -> None:
        super().__init__(f"{file}: {message}" if file else message, hint=hint)
        self.file = file


class TextRefused(BundleRefused):
    """A file's bytes are unsafe to hand to a parser."""


class PolicyRefused(BundleRefused):
    """One policy is refused; `policy_id` is its `@id`, or its place in the file when it has none."""

    def __init__(self, message: str, *, hint: str, file: str, policy_id: str) -> None:
        super().__init__(f"policy {policy_id}: {message}", hint=hint, file=file)
        self.policy_id = policy_id


class SchemaRefused(BundleRefused):
    """The schema is unusable."""


class TableRefused(BundleRefused):
    """A table test is unreadable or fails."""
