"""Our rules for one policy, checked on its parsed form before it may decide anything.

They exist because Cedar skips a policy that fails while it is evaluated.  An expression is taken from a closed list of
operators that cannot fail on facts of the schema's types: no arithmetic, which overflows, and no function but those of
IP addresses, whose arguments the validator checks.  Everything that is not on the list is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.errors import PolicyRefused

MAX_DEPTH: Final = 48
"""Operators above one another, links of a chain of `&&` or `||` included; Cedar's own JSON reader takes about 60."""
_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
SITE_PREFIX: Final = "site."
INVARIANTS_FILE: Final = "base/00-invariants.cedar"
_ARITHMETIC: Final = frozenset({"+", "-", "*", "neg"})
_OPERATORS: Final = frozenset(
    {
        *("Value", "Var", "Set", "Record", "."),
        *("==", "!=", "<", "<=", ">", ">=", "!", "&&", "||", "if-then-else"),
        *("in", "is", "has", "like", "contains", "containsAll", "containsAny", "isEmpty"),
        *("ip", "isInRange", "isIpv4", "isIpv6", "isLoopback", "isMulticast"),
    }
)


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """One policy as Cedar's own JSON form states it."""

    file: str
    place: int
    """0-based, within the file."""
    form: Mapping[str, Any]

    @property
    def annotations(self) -> dict[str, str]:
        """Name to value; Cedar gives a bare annotation no value."""
        return {name: value or "" for name, value in self.form.get("annotations", {}).items()}

    @property
    def id(self) -> str:
        """Its `@id`, or its place when it has none."""
        return self.annotations.get("id", f"#{self.place + 1}")

    @property
    def is_permit(self) -> bool:
        """It permits; else it forbids."""
        return bool(self.form["effect"] == "permit")


def lint(policy: ParsedPolicy) -> None:
    """Check one policy.

    Raises:
        PolicyRefused: naming the first rule it breaks.
    """
    _lint_id(policy)
    if policy.is_permit and policy.file == INVARIANTS_FILE:
        raise _refused(policy, "a permit among the invariants", "move it to another file of base/")
    if not policy.is_permit and len(policy.annotations) > 1:
        raise _refused(policy, "a forbid with obligations", "only a permit carries obligations; keep @id alone")
    for condition in policy.form["conditions"]:
        for operator, depth in _operators(condition["body"]):
            if depth > MAX_DEPTH:
                raise _refused(policy, f"an expression deeper than {MAX_DEPTH} operators", "split it, or use a set")
            if operator in _ARITHMETIC:
                raise _refused(policy, f"arithmetic ({operator})", "it can overflow and fail; compare single facts")
            if operator not in _OPERATORS:
                raise _refused(
                    policy, f"the operator {operator}", "it can fail or is not reviewed; see policies/lint.py"
                )


def _lint_id(policy: ParsedPolicy) -> None:
    if "id" not in policy.annotations:
        raise _refused(policy, "no @id", 'write @id("a-telling-name") above it')
    if not _ID.fullmatch(policy.id):
        raise _refused(policy, "its @id is unusable", "use 1 to 64 of a-z, 0-9, dot and hyphen")
    of_site = policy.file.startswith("site/")
    if policy.id.startswith(SITE_PREFIX) != of_site:
        hint = f'begin its @id with "{SITE_PREFIX}"' if of_site else f'"{SITE_PREFIX}" is for the files in site/'
        raise _refused(policy, "its @id does not say whose rule it is", hint)


def _operators(expression: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every operator of an expression and its depth; an expression is one operator over its operands."""
    pending: list[tuple[Any, int]] = [(expression, 1)]
    while pending:
        node, depth = pending.pop()
        for operator, operands in node.items():
            yield operator, depth
            match operator, operands:
                case ("Value" | "Var", _):
                    continue
                case ("Record", dict()):
                    pending.extend((each, depth + 1) for each in operands.values())
                case (_, list()):
                    pending.extend((each, depth + 1) for each in operands)
                case (_, dict()):
                    pending.extend((each, depth + 1) for each in operands.values() if isinstance(each, dict))


def _refused(policy: ParsedPolicy, message: str, hint: str) -> PolicyRefused:
    return PolicyRefused(message, hint=hint, file=policy.file, policy_id=policy.id)
