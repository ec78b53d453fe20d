"""One loaded tokenizer per family, and the released `transformers` tokenizer over the same files."""

from __future__ import annotations

import pytest
from tiny_tokenizers import FAMILIES
from transformers import AutoTokenizer

from appliance.text.tokenizer import ModelTokenizer

NONCE = "5f0c1d2e3b4a59687786a5b4c3d2e1f0"


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family(request):
    """Name of a tokenizer family."""
    return request.param


@pytest.fixture(scope="session")
def tokenizer(family):
    """Our tokenizer of that family."""
    return ModelTokenizer(FAMILIES[family](), nonce=NONCE)


@pytest.fixture(scope="session")
def oracle(family, tmp_path_factory):
    """The oracle's tokenizer of that family."""
    folder = tmp_path_factory.mktemp(family)
    for name, content in FAMILIES[family]().items():
        (folder / name).write_bytes(content)
    return AutoTokenizer.from_pretrained(folder)
