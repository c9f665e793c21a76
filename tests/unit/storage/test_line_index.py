"""The rows of a text file by number are those that reading it from its beginning gives."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.storage import line_index, prompt_source
from sar_eval.storage.input_file import input_file
from sar_eval.storage.line_index import read_lines
from sar_eval.storage.prompt_source import FileFacts, pack_index, scan, unpack_index

# Blank and filled lines, some that begin with the first byte of a blank, one that is not UTF-8.
LINES = (
    "",
    " ",
    "\t\r",
    "\u00a0",
    "\u3000\u2003",
    "a",
    " b ",
    "\u3042\u3044",
    "\u00e9t\u00e9",
    "x" * 50,
    "\u201cq\u201d",
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and strides of a few bytes."""
    monkeypatch.setattr(prompt_source, "CHUNK", 37)
    monkeypatch.setattr(line_index, "STRIDE", 16)


@pytest.mark.usefixtures("small")
def test_any_range_of_lines_is_what_the_whole_file_has(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines.txt"

    @given(st.lists(st.sampled_from(LINES)), st.booleans(), st.booleans(), st.data())
    def check(lines: list[str], has_end: bool, has_mark: bool, data: st.DataObject) -> None:
        text = "\n".join(lines) + ("\n" if has_end else "")
        path.write_bytes((b"\xef\xbb\xbf" if has_mark else b"") + text.encode())
        found = scan(input_file(str(path)), lines=True).lines
        rows = [line for line in text.split("\n") if line.strip()]
        assert found.rows == len(rows)
        start = data.draw(st.integers(0, len(rows)))
        stop = data.draw(st.integers(start, len(rows) + 2))
        with path.open("rb") as file:
            read = [line.decode().rstrip("\n") for line in read_lines(file, found, start, stop)]
        assert read == rows[start:stop]

    check()


@pytest.mark.usefixtures("small")
def test_the_digest_is_of_all_bytes_and_their_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = bytes(range(200))
    digests = set()
    for changed in (
        data,
        data[:-1],
        data[37:74] + data[:37] + data[74:],
        data[:100] + b"\0" + data[101:],
        b"",
    ):
        path.write_bytes(changed)
        digests.add(scan(input_file(str(path)), lines=False).digest)
    assert len(digests) == 5


def test_a_line_that_never_ends_is_cut_and_the_next_one_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_index, "MAX_LINE", 10)
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a\n" + b"b" * 95 + b"\n" + b" " * 30 + b"late\n" + b"c\n")
    found = scan(input_file(str(path)), lines=True).lines
    assert found.rows == 3  # ten blanks are as good as a blank line
    with path.open("rb") as file:
        assert list(read_lines(file, found, 0, 9)) == [b"a\n", b"b" * 11, b"c\n"]


@pytest.mark.usefixtures("small")
def test_an_index_is_packed_and_refused_where_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {n}\n" for n in range(100)))
    found = scan(input_file(str(path)), lines=True)
    facts = FileFacts(path.stat().st_size, found.digest, 100, ".txt", "7")
    data = pack_index(facts, found.lines)
    assert unpack_index(data, "i") == (facts, found.lines)
    for damaged in (
        data[:-1],
        data[1:],
        data + b"\0" * 16,
        data[:-16] + b"\xff" * 16,
        data.replace(b'"rows": 100', b'"rows": 2'),
        data.replace(b'"entries"', b'"entires"'),
        b"",
    ):
        with pytest.raises(BadInput, match="the index"):
            unpack_index(damaged, "the index")
