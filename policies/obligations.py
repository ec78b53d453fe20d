"""What a permit demands in return, read from its annotations once, at load.

Cedar keeps annotations inert: it neither checks nor evaluates them.  So every name and value is checked here, and an
annotation nobody here knows refuses the bundle instead of being ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from policies.actions import MAX_LONG
from policies.decision import Obligations

_LogLevel = Literal["none", "metadata", "commitments", "encrypted"]
_LOG_LEVELS: Final[tuple[_LogLevel, ...]] = ("none", "metadata", "commitments", "encrypted")
"""From least to most recorded; more is stricter."""
_DECIMAL: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)

ANNOTATIONS: Final = ("log_level", "max_tokens_cap")


class ObligationUnusable(ValueError):
    """An annotation that is unknown or has a value that cannot be carried out."""


def read_obligations(annotations: Mapping[str, str]) -> Obligations:
    """Read one permit's annotations, its `@id` aside.

    Raises:
        ObligationUnusable: an unknown name, or a value that cannot be carried out.
    """
    unknown = sorted(set(annotations) - set(ANNOTATIONS))
    if unknown:
        raise ObligationUnusable(f"unknown annotation @{unknown[0]}; there are @id, @{', @'.join(ANNOTATIONS)}")
    return Obligations(
        log_level=_log_level(annotations.get("log_level", Obligations().log_level)),
        max_tokens_cap=_cap(annotations["max_tokens_cap"]) if "max_tokens_cap" in annotations else None,
    )


def strictest(obligations: Iterable[Obligations]) -> Obligations:
    """Unite what several permits demand: the most recorded level, the lowest cap.

    Raises:
        ValueError: there is none; an allow always has at least one permit.
    """
    demanded = tuple(obligations)
    caps = [each.max_tokens_cap for each in demanded if each.max_tokens_cap is not None]
    return Obligations(
        log_level=max((each.log_level for each in demanded), key=_LOG_LEVELS.index),
        max_tokens_cap=min(caps, default=None),
    )


def _log_level(value: str) -> _LogLevel:
    for level in _LOG_LEVELS:
        if value == level:
            return level
    raise ObligationUnusable(f'@log_level("{value}"); there are {", ".join(_LOG_LEVELS)}')


def _cap(value: str) -> int:
    if not _DECIMAL.fullmatch(value) or int(value) > MAX_LONG:
        raise ObligationUnusable(f'@max_tokens_cap("{value}"); a positive integer in decimal digits is needed')
    return int(value)
