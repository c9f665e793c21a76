"""Qwen2's real byte-pair vocabulary as a `tokenizer.json`, from the rank file in qwen-agent or dashscope.

pip download --no-deps qwen-agent==0.0.34      # holds qwen_agent/utils/qwen.tiktoken
"""

import base64
import hashlib
import json
from pathlib import Path

SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"


def write_tokenizer(ranks: Path, like: Path, out: Path) -> None:
    """Write a tokenizer with the real vocabulary, otherwise as the file `like`."""
    data = ranks.read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    words = [base64.b64decode(line.split()[0]) for line in data.splitlines()]
    rank, spell = {word: number for number, word in enumerate(words)}, _alphabet()
    spelled = ["".join(spell[byte] for byte in word) for word in words]
    tokenizer = json.loads(like.read_text())
    tokenizer["model"]["vocab"] = {word: number for number, word in enumerate(spelled)}
    tokenizer["model"]["merges"] = [
        [spelled[rank[left]], spelled[rank[right]]] for word in words for left, right in _splits(word, rank)
    ]
    for number, token in enumerate(tokenizer["added_tokens"]):
        token["id"] = len(words) + number
    out.write_text(json.dumps(tokenizer))


def _splits(word: bytes, rank: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """All pairs of words that make this one, the earlier ones first."""
    pairs = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
    known = [(left, right) for left, right in pairs if left in rank and right in rank]
    return sorted(known, key=lambda pair: (rank[pair[0]], rank[pair[1]]))


def _alphabet() -> list[str]:
    """The printable character that stands for each byte in GPT-2's spelling."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    of = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [of[byte] for byte in range(256)]
