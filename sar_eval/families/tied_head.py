"""Whether the head of a checkpoint that says it is tied is the embedding, as its tensors are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.families.tensor_names import EMBEDDING, HEAD
from sar_eval.tensors.header import Entry
from sar_eval.tensors.safetensors_header import TensorEntry


def check_tie(equal: bool, where: str) -> None:
    """Refuse a head that would be ignored.

    Raises:
        BadInput: `equal` is false.
    """
    if not equal:
        raise BadInput(
            f"{where}: config.json says tie_word_embeddings true, but {HEAD} differs from {EMBEDDING} and "
            "would be ignored. Set it to false if the head was trained, or save the checkpoint again"
        )


def may_be_equal(headers: Mapping[str, tuple[Path, Entry]], *names: str) -> bool:
    """Whether two tensors are equal, type included; of torch files type and shape alone are compared."""
    (first, one), (second, other) = (headers[name] for name in names)
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if not (isinstance(one, TensorEntry) and isinstance(other, TensorEntry)):
        return True  # what is loaded is compared again
    with first.open("rb") as file, second.open("rb") as other_file:
        file.seek(one.begin)
        other_file.seek(other.begin)
        for start in range(one.begin, one.end, 1 << 24):
            number = min(1 << 24, one.end - start)
            if file.read(number) != other_file.read(number):
                return False
    return True
