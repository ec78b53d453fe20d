from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from siem_leaves import ATTACKS, NAME, any_leaf, attacked

from audit.siem.cef import MAX_CEF_BYTES, encode_cef, extension_value, header_value
from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.severity import severity_of

PLAIN = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=80)
KEYS = {
    *("rt", "externalId", "deviceExternalId", "dvchost", "cat", "suser", "spriv", "src", "c6a2", "c6a2Label", "shost"),
    *("request", "act", "outcome", "reason"),
    *(f"cs{number}{label}" for number in range(1, 7) for label in ("", "Label")),
    *(f"cn{number}{label}" for number in range(1, 4) for label in ("", "Label")),
}


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Read an event as the format's own text says, and nothing of ours: header by bare pipes, extension by bare `=`."""
    header: list[str] = [""]
    position = 0
    while len(header) < 8:
        character = line[position]
        if character == "\\":
            assert line[position + 1] in "\\|", f"a header knows no escape \\{line[position + 1]}"
            header[-1] += line[position + 1]
            position += 2
            continue
        if character == "|":
            header.append("")
        else:
            header[-1] += character
        position += 1
    extension = header.pop() + line[position:]
    assert header[0] == "CEF:0"
    keys = list(re.finditer(r"(?:^|(?<= ))([A-Za-z0-9]+)=", extension))
    pairs = {}
    for found, following in zip(keys, [*keys[1:], None], strict=True):
        end = len(extension) if following is None else following.start() - 1
        raw = extension[found.end() : end]
        assert not re.search(r"(?<!\\)(?:\\\\)*=", raw), f"a bare = in {raw!r}"
        pairs[found[1]] = re.sub(
            r"\\(.)", lambda escape: {"n": "\n", "r": "\r"}.get(escape[1], escape[1]), raw, flags=re.DOTALL
        )
    assert len(pairs) == len(keys), "a key stands twice"
    return header[1:], pairs


@given(any_leaf())
def test_an_event_is_one_bounded_line_of_known_keys_with_index_and_hash(leaf: ExportedLeaf) -> None:
    """Whatever the leaf says: the format's grammar holds, and the two values that tie it to the log are there."""
    encoded = encode_cef(leaf, NAME)
    assert len(encoded) <= MAX_CEF_BYTES
    line = encoded.decode()
    assert not any(unicodedata.category(one) in {"Cc", "Cf", "Zl", "Zp"} for one in line)
    header, pairs = parse_cef(line)
    kind = leaf.leaf.event.kind
    assert header[:4] == ["Cloister", "Cloister", NAME.version, kind]
    assert header[5] == str(severity_of(kind).cef)
    assert pairs.keys() <= KEYS
    assert (pairs["externalId"], pairs["cs1"], pairs["cs1Label"]) == (str(leaf.index), leaf.leaf_hash, "leafHash")
    assert pairs["rt"] == str(leaf.leaf.event.ts_us // 1000)


@given(PLAIN)
@example("a\\|b=c\\n")
def test_what_is_escaped_comes_back(text: str) -> None:
    """Round trip of both escapings, for text without control characters; line ends too in an extension."""
    header, pairs = parse_cef(f"CEF:0|{header_value(text[:20])}|p|v|k|n|3|suser={extension_value(text)} cat=x")
    assert header[0] == text[:20]
    assert pairs == {"suser": text, "cat": "x"}


@given(st.lists(st.sampled_from(["a", "\n", "\r", "\\", "=", "n", "r", " b="]), max_size=12).map("".join))
def test_line_ends_of_a_value_come_back(text: str) -> None:
    r"""`\n` typed out and a newline are two different values."""
    encoded = extension_value(text)
    assert "\n" not in encoded
    assert "\r" not in encoded
    assert parse_cef(f"CEF:0|a|p|v|k|n|3|suser={encoded}")[1] == {"suser": text}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_injection_stays_data(attack: str) -> None:
    """Every text of the leaf is hostile: no second event, no foreign key, no control character leaves."""
    leaf = attacked(ATTACKS[attack])
    line = encode_cef(leaf, NAME).decode()
    assert len(line.splitlines()) == 1
    header, pairs = parse_cef(line)
    assert header[3] == "request:denied"
    assert pairs["cs1"] == leaf.leaf_hash
    assert pairs["suser"] != "root"
    assert len(line.encode()) <= MAX_CEF_BYTES


def test_a_hostile_version_stays_in_the_header() -> None:
    """The header has no form for a line end: it is shown."""
    header, _ = parse_cef(encode_cef(attacked("x"), LogName("o", "1|2\\3\n4")).decode())
    assert header[2] == "1|2\\3\\u000a4"


@pytest.mark.parametrize(
    ("address", "key"), [("10.1.2.3", "src"), ("2001:db8::7", "c6a2"), ("unix", "shost"), ("::ffff:10.0.0.1", "c6a2")]
)
def test_an_address_goes_under_the_key_of_its_family(address: str, key: str) -> None:
    """`src` takes IPv4 alone; what is no address is a name."""
    _, pairs = parse_cef(encode_cef(attacked(address), NAME).decode())
    assert {name for name in ("src", "c6a2", "shost") if name in pairs} == {key}
    assert pairs[key] == address


@pytest.mark.parametrize("last", ["\\", "=", "\n", "é", "🏭", "\x1b"])
def test_a_cut_falls_between_characters_and_escapes(last: str) -> None:
    """However long the text, what is left of it is whole and says that it was cut."""
    for length in range(370, 390):
        value = extension_value("x" * length + last * 8)
        assert len(value.encode()) <= 384
        parsed = parse_cef(f"CEF:0|a|p|v|k|n|3|suser={value}")[1]["suser"]
        assert parsed == "x" * length + last * 8 or parsed.endswith("...")
