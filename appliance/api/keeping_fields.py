"""Fields that several bodies of the routes on what is kept have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from appliance.api.wire import refuse

MAX_NAME_CHARACTERS = 256
MAX_REASON_CHARACTERS = 1_000


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise refuse("is one line of printable characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS), AfterValidator(_one_line)]
"""A person's id or a tenant, exactly as the credential's record has it."""
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARACTERS), AfterValidator(_one_line)]
"""Why; it stands in the log for good, so it names a case and no content."""
EntryIndex = Annotated[int, Field(ge=0, le=2**53 - 1)]
