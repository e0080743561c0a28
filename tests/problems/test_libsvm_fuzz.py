"""Whatever bytes a LIBSVM file holds, they are read as they stand or refused in one line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import re
import tracemalloc

import numpy as np
import pytest

from asgrad.errors import AsgradError
from asgrad.problems import load

PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
PIECES = [
    *(b"qid:", b"#", b":", b"::", b"2147483647:1", b"2147483648:1", b"-1:1", b"9" * 20 + b":1"),
    *(b"1:1e400", b"1:nan", b"1:inf", b"\0", b"\xff", b" ", b"\n", b"\r", b"0x10:1", b"1:0x1p3"),
    *(b"1_0:1", b"1,", b"\xc2\xa0", b"\xe2\x80\xa8", b"qid:x", b"1e5:1", b"\x1a", b"\x0c", b"\x85"),
    *(b"nan", b"1:1j", b"1:1 1:1", b"%", b"\xef\xbb\xbf"),
]


def drawn_file(r: random.Random) -> bytes:
    """A valid file, of either count of features, with remarks, empty lines and groups."""
    lines, first = [], r.choice([0, 1])
    for _ in range(r.choice([1, 2, 5, 30])):
        columns = sorted(r.sample(range(first, first + 20), r.randint(0, 6)))
        parts = [r.choice([b"1", b"-1", b"+1", b"0", b"2.5", b"1e3"])]
        parts += [b"qid:%d" % r.randint(0, 5)] * (r.random() < 0.1)
        parts += [b"%d:%s" % (c, r.choice([b"1", b"0.5", b"-3e-2", b"0", b".5"])) for c in columns]
        line = r.choice([b" ", b"  ", b"\t"]).join(parts) + b" # 3:4" * (r.random() < 0.1)
        lines.append(r.choices([line, b"# remark", b""], [18, 1, 1])[0])
    end = r.choice([b"\n", b"\r\n"])
    return b"\xef\xbb\xbf" * (r.random() < 0.1) + end.join(lines) + end * (r.random() < 0.8)


def damaged(r: random.Random, content: bytes) -> bytes:
    """The file after some accidents."""
    data = bytearray(content)
    for _ in range(r.choice([0, 1, 1, 2, 5])):
        place = r.randrange(len(data) + 1)
        kind = r.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << r.randrange(8)
        elif kind == 1:
            data[place:place] = r.choice([*PIECES, r.randbytes(3)])
        elif kind == 2:
            del data[place : place + r.randint(1, 5)]
        elif kind == 3:
            del data[place:]
        else:
            lines = data.split(b"\n")
            r.shuffle(lines)
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def plainly_read(content: bytes) -> tuple[list[float], list[dict[int, float]]]:
    """Targets and features by index, read another way; of groups only that they are left out."""
    targets, rows = [], []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        words = line.partition(b"#")[0].split()
        if words:
            features = [word.split(b":") for word in words[1:] if not word.startswith(b"qid")]
            targets.append(float(words[0]))
            rows.append({int(index): float(value) for index, value in features})
    return targets, rows


def check_file(seed: int, folder) -> None:
    """Draw a file, packed or not, damaged before or after."""
    r = random.Random(seed)
    ending = r.choice(["", "", *PACKED])
    content = damaged(r, drawn_file(r)) if r.random() < 0.9 else r.randbytes(r.choice([0, 9, 200]))
    packed, is_whole = PACKED[ending](content), True
    if ending and r.random() < 0.5:
        is_whole = False
        place = r.randrange(len(packed))
        flipped = (
            packed[:place] + bytes([packed[place] ^ 1 << r.randrange(8)]) + packed[place + 1 :]
        )
        packed = r.choice([packed[:place], flipped])
    path = folder / f"some.svm{ending}"
    path.write_bytes(packed)
    said = ""
    tracemalloc.reset_peak()
    try:
        data = load(path)
    except AsgradError as error:
        said = str(error)
    assert tracemalloc.get_traced_memory()[1] < 20e6  # 8 MB are what xz unpacks with
    if said:
        assert "\n" not in said
        assert len(said) < 400
        line = re.search(r"line (\d+)", said)
        assert line or "is empty" in said
        assert not (line and is_whole) or 1 <= int(line[1]) <= content.count(b"\n") + 1
        return
    targets, rows = plainly_read(content)
    assert data.targets.tolist() == targets
    first = 0 if any(0 in row for row in rows) or not any(rows) else 1
    dense = np.zeros(data.features.shape)
    for i, row in enumerate(rows):
        for index, value in row.items():
            dense[i, index - first] = value
    if dense.size < 1e5:
        np.testing.assert_array_equal(data.features.toarray(), dense)


def check_files(seeds: range, folder) -> None:
    """Many of them, with an eye on the memory."""
    path = folder / "first.svm"
    path.write_bytes(b"1 1:1\n")
    load(path)  # imports what reads
    tracemalloc.start()
    try:
        for seed in seeds:
            check_file(seed, folder)
    finally:
        tracemalloc.stop()


def test_any_file_is_read_or_refused(tmp_path):
    check_files(range(120), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 61_000, 6000))
def test_any_file_for_long(first, tmp_path):
    check_files(range(first, first + 6000), tmp_path)
