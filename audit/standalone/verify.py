"""Check a Cloister evidence pack with Python 3.9 or newer alone: python3 verify.py PACK --key auditor.vkey

The key came to you by another way than the pack.  --checkpoint KEPT, as often as you like, names a checkpoint or an
index.proof that you kept: only against one does it show that the log's end was cut off or all of it written anew.
Ends with 0 for PASS, 1 for FAIL, 2 if nothing could be checked.  Nothing that is stored is believed: every hash, row
and state is computed again from the entries ("leaves").  The policies and summary.pdf are held to their digests alone.
"""

# fmt: off
from __future__ import annotations
import argparse, base64, datetime as dt, decimal, heapq, json, re, sys
from hashlib import sha256, sha512
from pathlib import Path
UNSOUND = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)  # of malformed evidence
def require(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)
def digest(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()
# 1. Ed25519 (RFC 8032, 5.1).  A point is (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT_OF_MINUS_1 = -121665 * pow(121666, P - 2, P) % P, pow(2, (P - 1) // 4, P)
def point_add(a: tuple, b: tuple) -> tuple:
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    m, n, o, q = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2), 2 * t1 * t2 * D, 2 * z1 * z2
    e, f, g, h = n - m, q - o, q + o, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P
def point_decode(encoded: bytes) -> tuple:
    """Return the point of 32 bytes; a point has one encoding, and every other is refused."""
    sign, y = divmod(int.from_bytes(encoded, "little"), 2**255)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * ROOT_OF_MINUS_1 % P
    require(len(encoded) == 32 and y < P and x * x % P == square and (x or not sign), "these bytes are no point")
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P
BASE = point_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
def check_signature(key: bytes, message: bytes, signature: bytes) -> None:
    """Refuse unless [S]B = R + [k]A, without a cofactor; S below the order L; A and R in their one encoding."""
    s, (x, y, z, t) = int.from_bytes(signature[32:], "little"), point_decode(key)
    require(len(signature) == 64 and s < L, "a signature is not in its one form")
    k = int.from_bytes(sha512(signature[:32] + key + message).digest(), "little") % L
    minus_a, found = (P - x, y, z, P - t), (0, 1, 1, 0)
    table = (found, BASE, minus_a, point_add(BASE, minus_a))
    for bit in reversed(range(253)):  # [S]B + [k](-A), both multiplications in one go
        found = point_add(found, found)
        found = point_add(found, table[(s >> bit & 1) + 2 * (k >> bit & 1)])
    x, y, _, _ = point_decode(signature[:32])
    require(((found[0] - x * found[2]) % P, (found[1] - y * found[2]) % P) == (0, 0), "a signature is wrong")

# 2. The tree (RFC 6962, 2.1).  A leaf's hash begins with a byte 0, an inner node's with a byte 1.
class Tree:
    """Grows by leaves or whole subtrees; `peaks` are the complete subtrees that cover it, as (level, hash)."""
    def __init__(self) -> None:
        self.size, self.peaks = 0, []
    def append(self, node: bytes, level: int = 0) -> list:
        """Add a subtree of 2**level leaves; return it and every subtree that it completes, as (level, hash)."""
        completed = [(level, node)]
        self.size += 1 << level
        while self.peaks and self.peaks[-1][0] == completed[-1][0]:
            level, left = self.peaks.pop()
            completed.append((level + 1, digest(b"\1", left, completed[-1][1])))
        self.peaks.append(completed[-1])
        return completed
    def grow(self, size: int, nodes: list) -> None:
        """Add the fewest complete subtrees that lead to a later size."""
        for node in nodes:
            aligned = (self.size & -self.size).bit_length() - 1 if self.size else 64
            self.append(node, min(aligned, (size - self.size).bit_length() - 1))
        require(self.size == size, "the tree does not grow to its head")
    def root(self) -> bytes:
        root = self.peaks[-1][1] if self.peaks else digest()
        for _, peak in reversed(self.peaks[:-1]):
            root = digest(b"\1", peak, root)
        return root
def climb(node: bytes, index: int, size: int, path: list) -> bytes:
    """Return the root over a node at this index; the last hash of the path is that of the other half of the tree."""
    if size == 1:
        require(not path, "the proof is too long")
        return node
    *below, sibling = path
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        return digest(b"\1", climb(node, index, half, below), sibling)
    return digest(b"\1", sibling, climb(node, index - half, size - half, below))
def check_inclusion(leaf: bytes, index: int, size: int, path: list, root: bytes) -> None:
    require(0 <= index < size, f"entry {index} is not in a tree of {size}")
    require(climb(digest(b"\0", leaf), index, size, path) == root, f"the proof of entry {index} has another root")

# 3. Keys, checkpoints, proofs (C2SP signed-note, tlog-checkpoint, tlog-proof).  One text per value, no other.
def decode_base64(text: str, size: int | None = None) -> bytes:
    decoded = base64.b64decode(text, validate=True)
    require(base64.b64encode(decoded).decode() == text and size in (None, len(decoded)), "base64 of another form")
    return decoded
def decode_number(text: str) -> int:
    require(re.fullmatch("0|[1-9][0-9]{0,18}", text), "what should be a plain number is not")
    return int(text)
def read_key(text: str) -> tuple:
    """Return name, key id and public key of a verifier key: `name+id+base64(1, key)`."""
    name, key_id, encoded = (*text.strip().split("+", 2), "", "")[:3]
    material = decode_base64(encoded, 33)
    require(name and material[0] == 1, "this is no Ed25519 verifier key")
    require(digest(name.encode(), b"\n", material).hex()[:8] == key_id, "the key id is of another key")
    return name, bytes.fromhex(key_id), material[1:]
def open_checkpoint(note: str, keys: list) -> tuple:
    """Return (size, root) that a known key signed; other keys are ignored, a bad line by a known key is not."""
    text, separator, block = note.rpartition("\n\n")
    require(separator and block.endswith("\n") and not re.search("[\x00-\t\x0b-\x1f]", note), "this is no signed note")
    require(len(note) <= 100_000 and block.count("\n") <= 64, "this note is longer than any that a log writes")
    lines, signers = text.split("\n"), set()
    for row in block[:-1].split("\n"):
        mark, name, blob = (*row.split(" ", 2), "", "")[:3]
        signature = decode_base64(blob)
        require(mark == "\u2014" and name and len(signature) > 4, "a signature line is a dash, a name and a signature")
        for key in [key for signer, key_id, key in keys if (signer, key_id) == (name, signature[:4])]:
            check_signature(key, f"{text}\n".encode(), signature[4:])
            signers.add(name)
    require(signers, "no known key signed this checkpoint")
    require(len(lines) == 3 and lines[0] in signers, "a checkpoint is its signer's name, a size and a root")
    return decode_number(lines[1]), decode_base64(lines[2], 32)
def read_proof(text: str) -> tuple:
    """Return index, path and signed checkpoint of a tlog-proof."""
    head, _, note = text.partition("\n\n")
    magic, *path = head.split("\n")
    index = path.pop(0) if path else ""
    require(magic == "c2sp.org/tlog-proof@v1" and index.startswith("index ") and len(path) < 64, "this is no proof")
    return decode_number(index[6:]), [decode_base64(line, 32) for line in path], note

# 4. One leaf: a JSON object in the one form of RFC 8785, with plain names and exact numbers.
MEMBERS = set("v index head kind ts_us mono_ns boot_id node_id epoch actor role tenant subject facts".split())
NUMBERS, TEXTS = "v index head epoch ts_us".split(), "kind mono_ns actor role tenant subject boot_id node_id".split()
MAX_SAFE, ENCODE = 2**53 - 1, json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
def canonical(value: object, depth: int = 0) -> str:
    require(depth < 18 or not isinstance(value, (dict, list)), "it is nested too deep")
    if isinstance(value, dict):
        require(all(name.isascii() for name in value), "a member's name is not ASCII")
        return "{" + ",".join(f"{ENCODE(name)}:{canonical(value[name], depth + 1)}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item, depth + 1) for item in value) + "]"
    if value is None or isinstance(value, (bool, str)):
        return ENCODE(value)
    require(abs(value) <= MAX_SAFE, "a number has no exact form")
    text = repr(int(value)) if value == int(value) else repr(value)
    return text if "e" not in text else text.replace("e-0", "e-") if abs(value) < 1e-6 else f"{decimal.Decimal(text):f}"
def number(text: str) -> object:
    value = int(text) if text.lstrip("-").isdigit() else float(text)
    require(canonical(value) == text, "a number is not in its one form")
    return value
DECODE = json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=number).decode
def decode_leaf(leaf: bytes) -> dict:
    """Return the members of a leaf: exactly these, and written as there is but one way to write them."""
    text = leaf.decode()
    entry = DECODE(text)
    require(isinstance(entry, dict) and entry.keys() == MEMBERS and entry["v"] == 1, "it has other members")
    require(all(type(entry[name]) is int and 0 <= entry[name] <= MAX_SAFE for name in NUMBERS), "a number is none")
    require(all(type(entry[name]) is str for name in TEXTS) and type(entry["facts"]) is dict, "a text is none")
    require(decode_number(entry["mono_ns"]) < 2**63, "mono_ns is too large")
    require(re.fullmatch("[a-z_]+:[a-z_]+", entry["kind"]) and entry["actor"], "it has no kind or no actor")
    require(all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in entry["facts"]), "a fact's name is not plain")
    write = ENCODE if text.isascii() and text.count("[") + text.count("{") < 18 else canonical  # the same, but sooner
    require(len(leaf) < 65536 and (write(entry) == text or canonical(entry) == text), "it is not in its one form")
    return entry

# 5. What leaves say of one another: place, batch, run, clock, and that each request begins once and ends once.
OPENING, TERMINALS = "request:admitted", {f"request:{end}" for end in ("completed", "failed", "cancelled", "abandoned")}
class History:
    def __init__(self) -> None:
        self.previous, self.running, self.ended = None, {}, set()
    def faults(self, index: int, entry: dict, minimum: int):
        before, self.previous = self.previous, entry
        if entry["index"] != index:
            yield f"it was written for index {entry['index']}"
        if entry["head"] != index and (entry["head"] > index or (before and entry["head"] != before["head"])):
            yield f"its batch began at {entry['head']}, which is not where one began"
        if before is None and index == 0 and entry["epoch"] != 1:
            yield f"the first entry is of epoch {entry['epoch']}"
        if before and entry["epoch"] != before["epoch"] + 1:  # so it is of the same run of the same machine
            ns = int(entry["mono_ns"]) - int(before["mono_ns"])
            step_us = abs((entry["ts_us"] - before["ts_us"]) * 1000 - ns) // 1000
            if any(entry[name] != before[name] for name in ("epoch", "boot_id", "node_id")):
                yield f"epoch {entry['epoch']} follows {before['epoch']}, or the machine changed within it"
            elif step_us > 15_000_000 + abs(ns) // 1_000_000:  # more than a time daemon may stretch
                yield f"wall and monotonic clock part by {step_us / 1e6:.3f} s"
        kind, subject = entry["kind"], entry["subject"]
        if kind == OPENING:
            if subject in self.running or subject in self.ended:
                yield f"{kind} a second time for {subject}"
            self.running.setdefault(subject, index)
        elif kind in TERMINALS:
            began_among_pruned = entry["facts"].get("admitted_index", minimum) < minimum
            if self.running.pop(subject, None) is None and (subject in self.ended or not began_among_pruned):
                yield f"{kind} ends {subject}, which does not run"
            self.ended.add(subject)

# 6. The log (C2SP tlog-tiles): the tree grows by the leaves, and every tile is computed and compared.
def tile_path(row: object, number: int, width: int) -> str:
    *upper, last = [group.zfill(3) for group in f"{number:,}".split(",")]
    folder = "".join(f"x{group}/" for group in upper)
    return f"tlog/tile/{row}/{folder}{last}" + ("" if width == 256 else f".p/{width}")
def log_leaves(tree: Tree, pack: Path, size: int, minimum: int, kept: list, bad):
    """Yield each (index, leaf); after the last, every tile and every kept (size, root) has been compared.  Of entries
    below `minimum`, which were pruned, there is one hash for each 256 of them, in the second row of tiles."""
    rows, kept = {}, sorted(kept, reverse=True)
    def read(path: str) -> bytes:
        fits = (pack / path).is_file() and (pack / path).stat().st_size < 2**25  # more than 256 entries can have
        return (pack / path).read_bytes() if fits else bad(None, path, "it is missing, or too long") or b""
    def compare_tile(level: int) -> None:
        nodes, first, rows[level] = rows[level], (tree.size >> 8 * level) - len(rows[level]), []
        tile = read(path := tile_path(level, first // 256, len(nodes)))
        for offset, node in enumerate([*nodes, b""]):  # and nothing behind the last
            if tile[32 * offset : 32 * offset + 32] != node:
                bad(first + offset << 8 * level, path, "the hash here is not that of the entries")
    def grow(node: bytes, level: int) -> None:
        for done, whole in tree.append(node, level):
            if done % 8 == 0:
                rows.setdefault(done // 8, []).append(whole)
                if len(rows[done // 8]) == 256:
                    compare_tile(done // 8)
        while kept and kept[-1][0] <= tree.size:
            kept_size, root = kept.pop()
            if kept_size == tree.size and root != tree.root():  # a smaller one lies among pruned entries
                bad(tree.size - 1, "history", f"the checkpoint that you kept of {kept_size} entries has another root")
    for start in range(0, size, 256):
        path, position = tile_path("entries", start // 256, min(256, size - start)), 0
        if start < minimum:
            above = read(tile_path(1, start >> 16, min(256, (size >> 8) - (start >> 16 << 8))))
            grow(above[start // 8 % 8192 :][:32], 8)
            continue
        bundle = read(path)
        if not bundle:  # a head can name any size: what follows is not looked for
            return bad(start, path, "without these entries nothing after them can be judged")
        for index in range(start, min(start + 256, size)):
            end = position + 2 + int.from_bytes(bundle[position : position + 2], "big")
            leaf, position = bundle[position + 2 : end], end
            grow(digest(b"\0", leaf), 0)
            yield index, leaf
        if position != len(bundle):
            bad(min(start + 255, size - 1), path, "the bundle is longer or shorter than its entries")
    for level in [level for level in rows if rows[level]]:
        compare_tile(level)
    for kept_size, _ in kept:
        bad(size, "history", f"the log ends before this entry, and you kept a signed checkpoint of {kept_size}")

# 7. The records as text and as a table, and the proofs of single entries.
FACTS = "route model_root decision outcome label code reason".split()
FACTS += "prompt_tokens completion_tokens cached_tokens total_ms".split()
COLUMNS = "index kind actor role tenant subject epoch head node_id boot_id mono_ns ts_us".split()
VIEWS, CELL = ("records.jsonl", "records.csv"), "\ud800"  # between cells: no text of a leaf can hold it
FORMULA = re.compile("[\ud800;|\t\r\n](?=\\s*[=+@\uff0b\uff0d\uff1d\uff20-]|[\t\r\n])")  # what a spreadsheet would run
def csv_row(values: list) -> bytes:
    cells = [value if isinstance(value, str) else "" if value is None else canonical(value) for value in values]
    row = FORMULA.sub("\\g<0>'", CELL + CELL.join(cells)).replace('"', '""').replace(CELL, '","')
    return f'{row[2:]}"\r\n'.encode()
class Records:
    """Holds records.jsonl, records.csv and the choice of single proofs to the entries in range, as they come."""
    def __init__(self, pack: Path, index: dict, bad) -> None:
        require(all((pack / name).is_file() for name in VIEWS), "the records are missing")
        self.files = [(name, (pack / name).open("rb")) for name in VIEWS]
        self.bounds = [[index["range"][f"{side}_{unit}"] for side in ("from", "until")] for unit in ("index", "us")]
        self.sample, self.bad, self.always, self.drawn, self.count = index["sample"], bad, [], [], 0
        self.compare(None, b"", csv_row(["time", *COLUMNS, *FACTS, "facts", "leaf_hash"]))
    def compare(self, index: int | None, *expected: bytes) -> None:
        for (name, file), piece in zip(self.files, expected):
            if file.read(len(piece)) != piece:
                self.bad(index, name, "it does not say what the entry says")
    def accept(self, index: int, leaf: bytes, entry: dict) -> None:
        (first, end), (start, stop) = self.bounds  # half-open, of index and of time
        if not (first <= index < end and start <= entry["ts_us"] < stop):
            return
        time = f"{dt.datetime.fromtimestamp(entry['ts_us'] // 10**6, dt.timezone.utc):%Y-%m-%dT%H:%M:%S}"
        facts = leaf[leaf.index(b'"facts":') + 8 : leaf.rindex(b',"head":')].decode()
        known = [*(entry[name] for name in COLUMNS), *(entry["facts"].get(name) for name in FACTS)]
        row = csv_row([f"{time}.{entry['ts_us'] % 10**6:06d}Z", *known, facts, digest(b"\0", leaf).hex()])
        self.compare(index, leaf + b"\n", row)
        self.count += 1
        rank = int.from_bytes(digest(f"{self.sample['seed']}:{index}".encode()), "big")
        push = heapq.heappush if len(self.drawn) < self.sample["size"] else heapq.heappushpop
        push(self.drawn, (-rank, index))  # the sample: the entries with the least SHA-256 of seed:index
        if entry["kind"] in self.sample["always"]:
            self.always.append(index)
    def finish(self, pack: Path, index: dict, note: str, size: int, root: bytes) -> None:
        if index["num_records"] != self.count:
            self.bad(None, "index.json", f"it counts {index['num_records']} records, the log has {self.count} in range")
        for name, file in self.files:
            if file.read(1):
                self.bad(None, name, "more follows the last entry in range")
            file.close()
        wanted = {f"proofs/{index}": index for index in (*self.always, *(index for _, index in self.drawn))}
        drawn = {f"{path}.{kind}" for path in wanted for kind in ("leaf", "tlog-proof")}
        for path in sorted(name for name in index["files"] if name.startswith("proofs/") and name not in drawn):
            self.bad(None, path, "the seed does not draw this entry")
        for path, at in wanted.items():
            try:
                place, nodes, head = read_proof((pack / f"{path}.tlog-proof").read_bytes().decode())
                require((place, head) == (at, note), "it is of another entry or another checkpoint")
                check_inclusion((pack / f"{path}.leaf").read_bytes(), at, size, nodes, root)
            except UNSOUND as error:
                self.bad(at, f"{path}.tlog-proof", str(error))

# 8. The seal: an entry of the log holds the digest of index.json, which holds the digest of every other file.
SEAL, KIND = ("index.json", "index.leaf", "index.proof", "index.growth"), "cloister-evidence/1"
FORM = """absent:l files:d format:s head:d minimum_index:i num_records:i origin:s range:d sample:d started_index:i
root:s size:i from_index:i from_us:i until_index:i until_us:i always:l seed:s size:i"""  # list, dict, str, int
def open_seal(pack: Path, keys: list) -> tuple:
    """Return index.json, and how the tree grew from the pack's head to the one that proves the entry."""
    sealed, leaf, proof, growth = ((pack / name).read_bytes() for name in SEAL)
    place, path, note = read_proof(proof.decode())
    size, root = open_checkpoint(note, keys)
    check_inclusion(leaf, place, size, path, root)
    made = decode_leaf(leaf)
    require(made["kind"] == "evidence:made" and made["index"] == place, "the entry that is proven is no evidence:made")
    require(made["facts"].get("index_sha256") == digest(sealed).hex(), "index.json is not the one that was recorded")
    *lines, end = growth.decode().split("\n")
    require(not end, "index.growth does not end with a line")
    index = json.loads(sealed, parse_float=str, parse_constant=str)  # written again, either would have quotes
    written = f"{json.dumps(index, indent=1, sort_keys=True)}\n".encode()  # so no name stands there twice
    parts = (index, index["head"], index["range"], index["sample"])
    form = [f"{name}:{type(value).__name__[0]}" for part in parts for name, value in part.items()]
    require((written, form) == (sealed, FORM.split()) and index["format"] == KIND, "index.json is in another form")
    require(index["origin"] == note.partition("\n")[0], "index.json is of another log")
    return index, size, root, [decode_base64(line, 32) for line in lines]
def check_files(pack: Path, listed: dict, bad) -> None:
    found = {path.relative_to(pack).as_posix(): path for path in pack.rglob("*") if path.is_file()}
    for name in sorted((found.keys() | listed.keys()) - set(SEAL)):
        hasher, size = sha256(), -1  # the size of what is missing
        if name in found:
            with found[name].open("rb") as file:
                for block in iter(lambda: file.read(2**20), b""):
                    hasher.update(block)
                size = file.tell()
        if listed.get(name) != {"sha256": hasher.hexdigest(), "size": size}:
            bad(None, name, "this file is not one that was sealed")
def verify(pack: Path, keys: list, kept: list) -> tuple:
    """Return the log's size, every finding as (entry index or None, file, what), and below what entries were pruned."""
    findings, tree, history, records, note, size, root = [], Tree(), History(), None, "", 0, b""
    bad = lambda *finding: findings.append(finding)
    for path in sorted(path for path in pack.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())):
        bad(None, path.relative_to(pack).as_posix(), "this is neither a file nor a folder")
    if findings:  # a link leads out of the pack, and reading a pipe never ends
        return 0, findings, 0
    try:
        index, later_size, later_root, growth = open_seal(pack, keys)
        check_files(pack, index["files"], bad)
        records = Records(pack, index, bad)
    except UNSOUND as error:
        bad(None, "index.json", f"the seal does not hold: {error}")
    try:
        note = (pack / "tlog/checkpoint").read_bytes().decode()
        size, root = open_checkpoint(note, keys)
    except UNSOUND as error:
        bad(None, "tlog/checkpoint", str(error))
    minimum, pruned = index["minimum_index"] if records else 0, 0
    for at, leaf in log_leaves(tree, pack, size, minimum, kept, bad):
        try:
            entry = decode_leaf(leaf)
            for fault in history.faults(at, entry, minimum):
                bad(at, "history", fault)
            if records:
                records.accept(at, leaf, entry)
            if entry["facts"].get("what") == "leaf" and "minimum_index" in entry["facts"]:
                pruned = max(pruned, entry["facts"]["minimum_index"])
        except UNSOUND as error:
            bad(at, "tlog/tile/entries", str(error))
    if tree.root() != root:
        bad(None, "tlog/checkpoint", "the entries do not lead to the signed root")
    if records:
        records.finish(pack, index, note, size, root)
        try:
            require(minimum == pruned, "entries are left out that no entry says were pruned, or the reverse")
            require(index["head"] == {"root": root.hex(), "size": size}, "the sealed head is not the log's")
            tree.grow(later_size, growth)
            require(tree.root() == later_root, "the head that proves the seal does not extend the log beside")
        except UNSOUND as error:
            bad(None, "index.growth", str(error))
    return size, sorted(findings, key=lambda finding: (finding[0] is None, finding[0] or 0)), minimum
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pack", type=Path)
    parser.add_argument("--key", type=Path, action="append", required=True)
    parser.add_argument("--checkpoint", type=Path, action="append", default=[])
    options = parser.parse_args()
    try:
        require(options.pack.is_dir(), f"{options.pack} is no folder")
        keys = [read_key(path.read_bytes().decode()) for path in options.key]
        notes = [path.read_bytes().decode() for path in options.checkpoint]
        kept = [open_checkpoint(read_proof(note)[2] if note.startswith("c2sp.org/") else note, keys) for note in notes]
    except UNSOUND as error:
        print(f"nothing was checked: {error}", file=sys.stderr)
        return 2
    size, findings, minimum = verify(options.pack, keys, kept)
    for at, where, what in findings[:20]:
        print(ascii(f"{where}{'' if at is None else f', entry {at}'}: {what}")[1:-1])
    print(f"{size} entries{'' if kept else '; no kept checkpoint was given, so a cut end would not show'}")
    for kept_size in sorted(kept_size for kept_size, _ in kept if kept_size < minimum and kept_size % 256):
        print(f"the checkpoint that you kept of {kept_size} entries lies among pruned ones: its root was not compared")
    print(f"FAIL: {len(findings)} findings, first bad entry: {findings[0][0]}" if findings else "PASS")
    return 1 if findings else 0
if __name__ == "__main__":
    sys.exit(main())
