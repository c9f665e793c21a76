"""What is accepted of a checkpoint of SimpleAR though it is not the plain form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sar_eval.families.tensor_names import EMBEDDING
from sar_eval.families.text_tokenizer import tokenizer_files

if TYPE_CHECKING:
    from sar_eval.families.simplear import Checkpoint


def notes(checkpoint: Checkpoint) -> Iterator[str]:
    """One line for each thing."""
    files, names = checkpoint.weight_files, checkpoint.tensor_names
    if files.unused:
        loaded = ", ".join(path.name for path in files.paths[:3]) + (
            ", ..." if len(files.paths) > 3 else ""
        )
        yield f"{checkpoint.folder}: {loaded} is loaded, and not {', '.join(files.unused[:5])}"
    if names.prefix:
        yield f"{checkpoint.folder}: the prefix {names.prefix} of all tensors' names is left out"
    if tested := checkpoint.test_prompts:
        yield (
            f"{checkpoint.folder} was trained on {tested} prompts of a test suite: its scores there mean "
            "little"
        )
    used, rows = checkpoint.decoder_config.vocab_size, _rows(checkpoint)
    if rows > used:
        yield f"{checkpoint.folder}: {used} of {rows} rows of the vocabulary are used, the rest is padding"
    if (tokenizer := tokenizer_files(checkpoint.folder))[0].name != "tokenizer.json":
        made_of = ", ".join(path.name for path in tokenizer)
        yield f"{checkpoint.folder}: the text tokenizer is made of {made_of}"


def _rows(checkpoint: Checkpoint) -> int:
    """Rows of the vocabulary, padding included, as the configuration or the embedding says."""
    rows = int(checkpoint.config["vocab_size"])
    return max(rows, checkpoint.headers[checkpoint.tensor_names.stored[EMBEDDING]][1].shape[0])
