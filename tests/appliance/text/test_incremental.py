import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unicode_texts import plain_texts

from appliance.text.incremental import IncrementalDecoder

LAW = settings(deadline=None, max_examples=60)


def _stream(tokenizer, ids):
    decoder = IncrementalDecoder(tokenizer)
    return [decoder.push(token_id) for token_id in ids], decoder.flush()


@given(plain_texts)
@LAW
def test_deltas_are_whole_characters_and_add_up(tokenizer, text):
    """Streamed text equals the whole, and shows no replacement character that the text does not hold."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    deltas, rest = _stream(tokenizer, ids)
    whole = tokenizer.decode_output(ids)
    assert "".join(deltas) + rest == whole
    assert rest == ""
    assert sum(delta.count("\ufffd") for delta in deltas) == whole.count("\ufffd")


@given(st.lists(st.integers(min_value=-1, max_value=700), max_size=60))
@LAW
def test_any_tokens_add_up(tokenizer, ids):
    """Random tokens, torn characters included, stream to exactly what they decode to at once."""
    deltas, rest = _stream(tokenizer, ids)
    assert "".join(deltas) + rest == tokenizer.decode_output(ids)


def test_a_character_waits_for_its_last_byte(tokenizer):
    """A character over several tokens comes with its last one, and a torn one only at the end."""
    ids = tokenizer.encode("\U0001f600", add_special_tokens=False)
    deltas, rest = _stream(tokenizer, ids)
    if len(ids) < 4:
        assert tokenizer.special_token_ids & set(ids), "only an unknown token may stand for four bytes"
        return
    assert [delta for delta in deltas if delta.strip()] == ["\U0001f600"]
    assert deltas[-1] == "\U0001f600"
    torn, rest = _stream(tokenizer, ids[:-1])
    assert "".join(torn).strip() == ""
    assert rest == "\ufffd"


def test_every_script_streams_whole(tokenizer, shared):
    """One text in 388 languages: streaming never breaks a character of any script."""
    archive = shared / "data" / "text" / "udhr2.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with zipfile.ZipFile(archive) as texts:
        names = sorted(name for name in texts.namelist() if name.endswith(".txt"))
        assert len(names) > 300
        for name in names:
            text = texts.read(name).decode(errors="strict")[:3000]
            ids = tokenizer.encode(text, add_special_tokens=False)
            deltas, rest = _stream(tokenizer, ids)
            assert "".join(deltas) + rest == tokenizer.decode_output(ids), name
            if not tokenizer.special_token_ids & set(ids):
                assert "\ufffd" not in "".join(deltas), name
