"""Whatever bytes a prompt file has, it is a suite or an error in words; and what is read can be stored."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.suites.prompts import load_suite
from sar_eval.types import SAFE_ID, Prompt, suite_digest

TEXT = 'id,text,tag\na,"a ring, red",t\nb,"two\nlines",\n'
METADATA = '{"tag": "t", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a \\u00e9"}'


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    rows = [{"id": 1.0, "text": "a ring", "checks": {"a": [1.5, None]}}, {"id": None, "text": "a star"}]
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


GOOD = {
    "csv": [TEXT.encode(), TEXT.replace(",", ";").encode("utf-16"), "text\n一只猫".encode("gbk")],
    "tsv": [TEXT.replace(",", "\t").encode()],
    "txt": [b"a ring\r\n\na star"],
    "jsonl": [METADATA.encode() + b'\n{"text": "b", "id": 1}', b'{"text": "a", "checks": "[[1]]"}'],
    "json": [b'["a", {"caption": "b"}]', b"[" + METADATA.encode() + b",\n3]"],
    "parquet": [_parquet()],
}
PIECES = st.sampled_from(
    (
        *(
            b"\x00",
            b"\xff\xfe",
            b"\xed\xa0\x80",
            b"\\ud800",
            b'"',
            b"[" * 600,
            b"9" * 5000,
            b"1e999",
            b"NaN",
        ),
        *(
            b"\r",
            b"\n",
            b",",
            b"\t",
            b"null",
            b"true",
            b'{"id":',
            b"\xef\xbb\xbf",
            b"x" * 140_000,
            b"sep=;\n",
        ),
    )
)


@st.composite
def _files(draw: st.DrawFn) -> tuple[str, bytes]:
    kind = draw(st.sampled_from(sorted(GOOD)))
    if draw(st.integers(0, 5)) == 0:
        return kind, draw(st.binary(max_size=60))
    data = draw(st.sampled_from(GOOD[kind]))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 4, len(data))))
        data = data[:start] + draw(PIECES | st.binary(max_size=3)) + data[end:]
    return kind, data


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_files())
def test_any_bytes_are_a_suite_or_bad_input(tmp_path: Path, file: tuple[str, bytes]) -> None:
    kind, data = file
    path = tmp_path / f"p.{kind}"
    path.write_bytes(data)
    try:
        prompts = load_suite(path).prompts
    except BadInput as error:
        message, prompts = str(error), ()
        assert message.encode().startswith(str(path).encode()), message
    for prompt in prompts:
        assert SAFE_ID.fullmatch(prompt.id)
        assert "\x00" not in prompt.text
        prompt.text.encode()
    assert len({prompt.id.lower() for prompt in prompts}) == len(prompts)


@given(st.lists(st.tuples(st.text(min_size=1), st.text(), st.none() | st.lists(st.integers() | st.text()))))
def test_the_fast_digest_is_that_of_json(rows: list) -> None:
    prompts = [Prompt(a, a + b, b, checks, a[:1]) for a, b, checks in rows]
    total = hashlib.sha256()
    for p in prompts:
        total.update(json.dumps([p.id, p.text, p.tag, p.checks, p.split], sort_keys=True).encode())
    assert suite_digest(prompts) == total.hexdigest()[:16]


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_the_good_files_are_good(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"p.{kind}").write_bytes(GOOD[kind][0])
    assert len(load_suite(tmp_path / f"p.{kind}").prompts) == 2
