"""Qwen2's real byte-pair vocabulary as a `tokenizer.json`, from tiktoken's file of ranks.

The whole file is in PyPI's qwen-agent (Apache-2.0):

    pip download --no-deps qwen-agent==0.0.34      # holds qwen_agent/utils/qwen.tiktoken
    SAR_EVAL_QWEN_RANKS=path/to/qwen.tiktoken pytest tests/golden/test_hpsv3_parity.py

`tests/golden/data/hpsv3/qwen_words.tiktoken` has those of its lines whose words occur in the texts of the
reference data, which is all that byte-pair encoding can use of it there:

    python -m tests.qwen_vocabulary path/to/qwen.tiktoken path/to/parity/hpsv3
"""

import base64
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

SIZE = 151_643  # words of the whole vocabulary; special tokens follow


def read_ranks(path: Path) -> dict[bytes, int]:
    """Words and their ids."""
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(word): int(number) for word, number in lines}


def write_tokenizer(ranks: dict[bytes, int], like: Path, out: Path) -> None:
    """Write a tokenizer with this vocabulary, otherwise as the file `like`."""
    alphabet = _alphabet()
    spelled = {word: "".join(alphabet[byte] for byte in word) for word in ranks}
    tokenizer = json.loads(like.read_text())
    # Special tokens are numbered from the end, so every id needs a word; no text has a word with a blank.
    vocabulary = {number: f"no {number}" for number in range(SIZE)}
    vocabulary |= {number: spelled[word] for word, number in ranks.items()}
    tokenizer["model"]["vocab"] = {word: number for number, word in vocabulary.items()}
    tokenizer["model"]["merges"] = [
        [spelled[left], spelled[right]] for word in ranks for left, right in _splits(word, ranks)
    ]
    for number, token in enumerate(tokenizer["added_tokens"]):
        token["id"] = SIZE + number
    out.write_text(json.dumps(tokenizer))


def _splits(word: bytes, ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """All pairs of words that make this one, the earlier ones first."""
    pairs = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
    known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
    yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _alphabet() -> list[str]:
    """The printable character that stands for each byte in GPT-2's spelling."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    of = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [of[byte] for byte in range(256)]


def main(ranks: Path, folder: Path, out: Path) -> None:
    """Write the words that occur in the texts, and the texts."""
    content = json.loads((folder / "cases.json").read_text())
    formatted = "\n".join(case["formatted_text"] for case in content["cases"])
    text = unicodedata.normalize("NFC", formatted).encode()
    kept = [
        line for line in ranks.read_bytes().splitlines() if _word(line) in text or len(_word(line)) == 1
    ]
    (out / "qwen_words.tiktoken").write_bytes(b"\n".join(kept) + b"\n")
    (out / "texts.json").write_text(json.dumps(content["texts"], indent=1) + "\n")


def _word(line: bytes) -> bytes:
    return base64.b64decode(line.split()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(__file__).parent / "golden" / "data" / "hpsv3")
