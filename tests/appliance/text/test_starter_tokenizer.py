import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from starter_tokenizer import CONTROL_TOKENS, chat_ids, save_tokenizer, train_tokenizer
from transformers import AutoTokenizer
from unicode_texts import hostile_texts, plain_texts

from appliance.inference import Message
from appliance.text.tokenizer import TOKENIZER_FILES, ModelTokenizer

LAW = settings(deadline=None, max_examples=100)


def _load(folder):
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    return ModelTokenizer(files, nonce="e" * 32)


@pytest.fixture(scope="module")
def trained():
    """The starter's tokenizer, trained on a few conversations."""
    return train_tokenizer(seed=1, num_conversations=20)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """Its files."""
    folder = tmp_path_factory.mktemp("starter")
    save_tokenizer(trained, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    """Ours over those files."""
    return _load(folder)


@pytest.fixture(scope="module")
def oracle(folder):
    """The released tokenizer over those files."""
    return AutoTokenizer.from_pretrained(folder)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), hostile_texts), min_size=1, max_size=4))
@LAW
def test_a_served_conversation_has_the_ids_it_was_trained_on(trained, tokenizer, oracle, turns):
    """Even for forged control tokens: the starter's template breaks them, and so does its trainer."""
    dicts = [{"role": role, "content": text} for role, text in turns]
    ours = tokenizer.encode_conversation([Message(role, text) for role, text in turns])
    assert ours == chat_ids(trained, dicts)
    assert ours == oracle.apply_chat_template(dicts, add_generation_prompt=True, return_dict=False)


def test_the_shipped_starter_equals_transformers(repository):
    """The very files that are served, against the released tokenizer."""
    weights = repository / "models" / "starter" / "weights"
    if not (weights / "tokenizer.json").is_file():
        pytest.skip("the starter has not been trained in this tree")
    tokenizer, oracle = _load(weights), AutoTokenizer.from_pretrained(weights)
    assert tokenizer.eos_token_ids == {oracle.eos_token_id}

    @given(plain_texts)
    @LAW
    def same(text):
        assume(not any(name in text for name in CONTROL_TOKENS))
        assert tokenizer.encode(text) == oracle.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode_conversation([Message("user", text)]) == oracle.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )

    same()
