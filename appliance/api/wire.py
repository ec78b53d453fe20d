"""What every wire type has in common: closed, strict, and honest about what it does not honour.

Invariants: an unknown field is refused by name; nothing is converted ("1" is no number); a field that OpenAI has and
we do not honour is declared as `Unsupported`, so that it is refused by name unless it is null.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported_parameter"


class WireModel(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _only_null(value: object) -> None:
    if value is not None:
        raise PydanticCustomError(UNSUPPORTED, "is not supported by this server; leave it out")


def refuse(message: str) -> PydanticCustomError:
    """Give the error for a value that is well-formed and cannot be honoured; the message follows the field's name."""
    return PydanticCustomError("refused_value", "{message}", {"message": message})


def _only_false(value: bool) -> bool:
    if value:
        raise refuse("can only be false here")
    return value


OnlyFalse = Annotated[bool, AfterValidator(_only_false), Field(json_schema_extra={"const": False})]
"""`Literal[False]` would take 0 as well."""

Unsupported = Annotated[None, BeforeValidator(_only_null)]
"""A field of OpenAI's that is accepted only as null, which means absent."""

Label = Annotated[str, Field(max_length=512)]
"""What a client says about itself; recorded as a commitment, believed nowhere."""
