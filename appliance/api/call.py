"""One authenticated HTTP call on its way into an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from appliance.identity.principal import Principal

if TYPE_CHECKING:
    from appliance.app import Appliance


@dataclass(frozen=True, slots=True)
class Call:
    """Who called, with what, and the appliance that answers.

    By the time an endpoint sees a call, its credential was proven; for every action but `infer` policy has allowed it
    too.  `infer` is decided inside the walk, because its facts are known only after the body was read.
    """

    principal: Principal
    request: Request
    request_id: str
    source: str
    """The socket peer's address; no header can change it."""
    label: int
    """Declared sensitivity, 0-4, from `x-cloister-label`; it can only restrict."""
    appliance: Appliance
