"""A matrix product with a fixed weight, laid out once for the processor it runs on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

PACKED_DTYPES = frozenset({torch.float32, torch.bfloat16})
"""oneDNN's packed products of these beat the plain ones on every processor measured; fp16 is left to torch."""


class Linear:
    """`x @ weight.T`; owns its weight, which is never seen again in the given layout."""

    def __init__(self, weight: Tensor) -> None:
        """Take a weight `[out_size, in_size]`; the caller lets go of it, so that packing does not double memory."""
        self._packed = can_pack(weight.dtype)
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight  # noqa: SLF001 - the only door to oneDNN's layouts

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply `[num_tokens, in_size]` of the weight's dtype, at least one token, into `[num_tokens, out_size]`."""
        if self._packed:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")  # noqa: SLF001 - same
            return product
        return functional.linear(x, self._weight)


def can_pack(dtype: torch.dtype) -> bool:
    """Say whether oneDNN serves this dtype on this processor."""
    if dtype not in PACKED_DTYPES or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - same
