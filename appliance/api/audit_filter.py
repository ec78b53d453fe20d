"""What a call asks of the log: the language of filters, and one parameter per field as its shorthand.

Invariant: one path.  A shorthand becomes the same expression that its long form does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.errors import BadRequest
from audit.errors import FilterRefused
from audit.search.expression import Equal, Expression, all_of
from audit.search.fields import TEXT_FIELDS
from audit.search.normal_form import alternatives
from audit.search.parser import parse_filter
from audit.search.tokens import MAX_FILTER_CHARACTERS

MAX_VALUE_CHARACTERS = 256
"""Of a shorthand."""
FILTERS = TEXT_FIELDS
FILTER_QUERY: Mapping[str, Mapping[str, Any]] = {
    "filter": {"type": "string", "maxLength": MAX_FILTER_CHARACTERS},
    **{name: {"type": "string", "maxLength": MAX_VALUE_CHARACTERS} for name in FILTERS},
}


def read_filter(query: Mapping[str, str]) -> Expression:
    """Give what the call asks for: `filter`, and with it every shorthand.

    Raises:
        BadRequest: it means nothing, or more than is evaluated; the message points at the character.
    """
    for name in FILTERS:
        if len(query.get(name, "")) > MAX_VALUE_CHARACTERS:
            raise BadRequest(f"at most {MAX_VALUE_CHARACTERS} characters", code="bad_value", param=name)
        if "\0" in query.get(name, ""):
            raise BadRequest("no record holds a NUL", code="bad_value", param=name)
    try:
        parts = [
            parse_filter(query.get("filter", "")),
            *(Equal(name, query[name]) for name in FILTERS if name in query),
        ]
        expression = all_of(parts)
        alternatives(expression)
    except FilterRefused as refused:
        raise BadRequest(str(refused), code="bad_filter", param="filter") from refused
    return expression
