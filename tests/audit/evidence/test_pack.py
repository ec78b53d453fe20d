from __future__ import annotations

import base64
import csv
import io
import json
import re
import zlib
from pathlib import Path

import pytest
from evidence_packs import ALWAYS, PAIRING, SIGNER, build_mixed_log, make_pack, record_made
from pyarrow import parquet
from two_verifiers import judge

from audit.errors import AuditCorrupt, AuditRefused, LogExists
from audit.evidence.build import PackOrder, drafting, seal_pack, write_pack
from audit.evidence.index import PackIndex, SampleRule, Selection
from audit.leaf import decode_leaf
from audit.merkle import leaf_hash
from audit.proof import EntryProof
from audit.verify import DEFAULT_CLOCK_LIMIT_US

NUM_LEAVES = 300


def order(**changes: object) -> PackOrder:
    """What `make_pack` asks for, with changes."""
    asked: dict[str, object] = {
        "selection": Selection(),
        "seed": None,
        "sample_size": 5,
        "always": ALWAYS,
        "pairing": PAIRING,
        "started_index": 1,
        "maker": "avery",
        "trust": "production",
        "clock_limit_us": DEFAULT_CLOCK_LIMIT_US,
        "attachments": {},
        "absent": (),
        **changes,
    }
    return PackOrder(**asked)


def lines_of(pack: Path) -> list[bytes]:
    """The leaves in records.jsonl."""
    return (pack / "records.jsonl").read_bytes().split(b"\n")[:-1]


def test_a_pack_passes_both_verifiers(honest: Path) -> None:
    """Sealed, whole and in agreement with its log."""
    assert judge(honest / "pack", SIGNER.verifier).passed == (True, True)


def test_every_form_of_the_records_says_what_the_leaves_say(honest: Path) -> None:
    """Bytes, table and columns, field by field, read by readers that nobody here wrote."""
    pack = honest / "pack"
    leaves = lines_of(pack)
    rows = list(csv.DictReader(io.StringIO((pack / "records.csv").read_bytes().decode(), newline="")))
    typed = parquet.read_table(pack / "records.parquet").to_pylist()
    assert len(leaves) == len(rows) == len(typed) == NUM_LEAVES
    for index, (leaf_bytes, row, columns) in enumerate(zip(leaves, rows, typed, strict=True)):
        entry = json.loads(leaf_bytes)
        assert (int(row["index"]), columns["index"], entry["index"]) == (index, index, index)
        assert json.loads(columns["facts"]) == entry["facts"]
        assert columns["leaf_hash"] == leaf_hash(leaf_bytes) == bytes.fromhex(row["leaf_hash"])
        assert columns["mono_ns"] == int(entry["mono_ns"]) == int(row["mono_ns"])
        assert int(columns["time"].timestamp() * 1_000) == entry["ts_us"] // 1_000
        assert columns["actor"] == entry["actor"]
        assert row["actor"].replace("'", "") == entry["actor"]
        for name in ("prompt_tokens", "completion_tokens"):
            assert columns[name] == entry["facts"].get(name)
            assert row[name] == str(entry["facts"].get(name, ""))


def test_no_cell_of_the_table_is_a_formula_under_any_separator(honest: Path) -> None:
    """As a spreadsheet of another country reads it: cells end at a comma, a semicolon, a tab, a bar or a line."""
    content = (honest / "pack" / "records.csv").read_bytes().decode()
    assert content.count("=HYPERLINK") > 1
    for separator in ",;\t|":
        for row in csv.reader(io.StringIO(content, newline=""), delimiter=separator):
            assert not [cell for cell in row if re.match(r"\s*[=+@\uff1d-]|[\t\r\n]", cell)]


def test_the_table_is_rfc_4180(honest: Path) -> None:
    """CRLF ends each row, every cell is quoted, a quote is doubled, as many cells as names."""
    content = (honest / "pack" / "records.csv").read_bytes().decode()
    rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert {len(row) for row in rows} == {len(rows[0])}
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(rows)
    assert written.getvalue() == content


def test_each_single_proof_stands_alone(honest: Path) -> None:
    """With the key and nothing else of the pack; every act of governance has one, and the sample is as asked."""
    pack = honest / "pack"
    index = PackIndex.from_bytes((pack / "index.json").read_bytes())
    proven = set()
    for file in (pack / "proofs").glob("*.tlog-proof"):
        proof = EntryProof.from_text(file.read_text())
        leaf_bytes = file.with_suffix(".leaf").read_bytes()
        assert proof.verify(leaf_bytes, [SIGNER.verifier]).size == index.head_size
        assert decode_leaf(leaf_bytes).index == proof.index
        proven.add(proof.index)
    always = {i for i, leaf in enumerate(lines_of(pack)) if json.loads(leaf)["kind"] in ALWAYS}
    assert always <= proven
    assert len(always) > 5
    assert len(proven) <= len(always) + 5
    assert index.sample == SampleRule(index.head_root, 5, ALWAYS)


def test_a_seed_decides_the_sample(tmp_path: Path) -> None:
    """The same seed draws the same entries, another seed others."""
    build_mixed_log(tmp_path / "a.db", NUM_LEAVES)
    drawn = []
    for number, seed in enumerate(("one", "one", "two")):
        with drafting(tmp_path / f"pack{number}") as draft:
            write_pack(tmp_path / "a.db", draft, SIGNER.verifier, order(seed=seed, sample_size=20))
            drawn.append({path.name for path in (draft / "proofs").iterdir()})
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(from_index=10, until_index=20), range(10, 20)),
        (Selection(from_index=290), range(290, 300)),
        (
            Selection(
                from_us=1_763_964_000_000_000 + 900_000_000 * 5, until_us=1_763_964_000_000_000 + 900_000_000 * 9
            ),
            range(5, 9),
        ),
        (Selection(from_index=400), range(0)),
    ],
)
def test_a_range_picks_the_records_and_the_log_stays_whole(
    tmp_path: Path, selection: Selection, expected: range
) -> None:
    """By index and by time, half-open; no entry at all is a pack too."""
    build_mixed_log(tmp_path / "a.db", NUM_LEAVES)
    make_pack(tmp_path / "a.db", tmp_path / "pack", selection=selection)
    assert [json.loads(line)["index"] for line in lines_of(tmp_path / "pack")] == list(expected)
    assert judge(tmp_path / "pack", SIGNER.verifier).passed == (True, True)


@pytest.mark.parametrize("num_leaves", [2, 3, 255, 256, 257, 512, 700])
def test_packs_of_awkward_sizes_pass(tmp_path: Path, num_leaves: int) -> None:
    """Full tiles, partial ones, one leaf beyond."""
    build_mixed_log(tmp_path / "a.db", num_leaves)
    make_pack(tmp_path / "a.db", tmp_path / "pack")
    assert judge(tmp_path / "pack", SIGNER.verifier).passed == (True, True)


def test_the_same_log_range_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    """The PDF and the Parquet file among them; nothing but the order of making decides a byte."""
    contents = []
    for number in range(2):
        build_mixed_log(tmp_path / f"{number}.db", NUM_LEAVES)
        with drafting(tmp_path / f"pack{number}") as draft:
            write_pack(tmp_path / f"{number}.db", draft, SIGNER.verifier, order(seed="s"))
            files = (path for path in draft.rglob("*") if path.is_file())
            contents.append({path.relative_to(draft).as_posix(): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) > 20


class Interrupted(BaseException):
    """Ctrl-C, or whatever ends a process in order."""


@pytest.mark.parametrize("step", ["before", "written", "sealed"])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, step: str) -> None:
    """At no step is there a folder that looks finished, or any at all."""
    build_mixed_log(tmp_path / "a.db", 40)
    before = {path.name for path in tmp_path.iterdir()}

    def interrupt(at: str) -> None:
        if at == step:
            raise Interrupted

    def build() -> None:
        with drafting(tmp_path / "pack") as draft:
            interrupt("before")
            made = write_pack(tmp_path / "a.db", draft, SIGNER.verifier, order())
            interrupt("written")
            seal_pack(draft, record_made(tmp_path / "a.db", made), [SIGNER.verifier])
            interrupt("sealed")

    with pytest.raises(Interrupted):
        build()
    assert not (tmp_path / "pack").exists()
    assert not [path for path in tmp_path.iterdir() if path.name not in before and not path.name.startswith("a.db")]


def test_a_seal_of_another_pack_is_refused(tmp_path: Path) -> None:
    """What the appliance gave back must prove this index."""
    build_mixed_log(tmp_path / "a.db", 40)
    with drafting(tmp_path / "one") as draft:
        seal = record_made(tmp_path / "a.db", write_pack(tmp_path / "a.db", draft, SIGNER.verifier, order()))
        seal_pack(draft, seal, [SIGNER.verifier])

    def seal_wrongly() -> None:
        with drafting(tmp_path / "two") as draft:
            write_pack(tmp_path / "a.db", draft, SIGNER.verifier, order(maker="mallory"))
            seal_pack(draft, seal, [SIGNER.verifier])

    with pytest.raises(AuditCorrupt, match="not the one that was recorded"):
        seal_wrongly()
    assert not (tmp_path / "two").exists()


def test_no_pack_without_the_entry_that_allowed_it(tmp_path: Path) -> None:
    """A log that ends before it is an old copy."""
    build_mixed_log(tmp_path / "a.db", 40)

    def build() -> None:
        with drafting(tmp_path / "pack") as draft:
            write_pack(tmp_path / "a.db", draft, SIGNER.verifier, order(started_index=40))

    with pytest.raises(AuditRefused):
        build()
    assert not (tmp_path / "pack").exists()


def test_a_folder_that_exists_is_never_touched(honest: Path) -> None:
    """Not even an empty one."""
    with pytest.raises(LogExists), drafting(honest):
        pass


def test_the_summary_holds_its_numbers_as_text(honest: Path) -> None:
    """Extractable, with the head, the counts and the limits of what it proves."""
    text = pdf_text(honest / "pack" / "summary.pdf")
    index = PackIndex.from_bytes((honest / "pack" / "index.json").read_bytes())
    for words in (index.head_root[:24], "300 of 300", "label-within-clearance", "does not prove", "DEVELOPMENT TRUST"):
        assert words in text, words


def pdf_text(path: Path) -> str:
    """Take the strings out of a PDF's content streams, as a reader's search does."""
    text = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", path.read_bytes(), re.DOTALL):
        content = zlib.decompress(base64.a85decode(stream.strip().removesuffix(b"~>")))
        text += [match.decode("latin-1") for match in re.findall(rb"\(((?:\\.|[^\\()])*)\)", content)]
    return " ".join(text).replace("\\(", "(").replace("\\)", ")")
