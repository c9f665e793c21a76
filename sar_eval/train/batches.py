"""Batches of training: token sequences of a stream's rows, cut for ranks and workers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sar_eval.errors import BadInput, SarEvalError
from sar_eval.families.simplear import BEGIN_TOKEN, IMAGE_TOKEN
from sar_eval.train.token_stream import TokenStream, TrainRow

IGNORED = -100  # label of what is not trained, as torch's cross-entropy has it
Sequences = list[tuple[list[int], NDArray[np.int64]]]  # text ids and visual ids of each row


class TextIds:
    """Ids of captions, as engines make those of prompts: special tokens in them are read as text.

    Attributes:
        size: number of text ids, special tokens included; the first visual id.
        begin, image: ids of `<|t2i|>` and `<|soi|>`.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take a tokenizer of transformers, or of tokenizers.

        Raises:
            BadInput: it lacks the control tokens.
        """
        from tokenizers import Tokenizer

        known = tokenizer.get_vocab()
        if missing := [name for name in (BEGIN_TOKEN, IMAGE_TOKEN) if name not in known]:
            raise BadInput(
                f"the text tokenizer lacks {', '.join(missing)}: it is not one of a model of this kind"
            )
        self.begin, self.image = int(known[BEGIN_TOKEN]), int(known[IMAGE_TOKEN])
        self.size = len(known)
        # A copy, as the caller's may pad, and reads special tokens.
        self._tokenizer = Tokenizer.from_str(getattr(tokenizer, "backend_tokenizer", tokenizer).to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True

    def __call__(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of some captions."""
        found = self._tokenizer.encode_batch_fast(list(captions), add_special_tokens=False)
        return [encoding.ids for encoding in found]


class MicroBatches(IterableDataset[dict[str, Any]]):
    """What one rank passes through the model, in order: a function of the stream and the step.

    Step k has the rows k * B to (k + 1) * B - 1 of the stream, for B pictures a step. Its micro-batch j on
    rank r of R has the M rows from k * B + (j * R + r) * M on. Loader workers deal the micro-batches among
    themselves, so that their number changes nothing.

    Each micro-batch is a dictionary of `input_ids` and `labels` [b, L], `position_ids` [1, L] if packed,
    `total` (visual tokens of the whole step on all ranks, to divide sums of losses by), `keys` of the rows,
    and `truncated` (captions that were cut to fit).

    Sequences are `<|t2i|> caption <|soi|> codes`, with labels on the codes alone. They are padded on the
    right, where causal attention needs no mask; or one follows the other in a single row, with position ids
    that begin again at 0, from which transformers makes the mask.

    Attributes:
        per_step: micro-batches of a step on each rank.
    """

    def __init__(
        self,
        stream: TokenStream,
        text: TextIds,
        *,
        rank: int,
        ranks: int,
        batch_size: int,
        micro: int,
        first_step: int,
        steps: int,
        pack: bool = False,
        context: int = 0,
    ) -> None:
        """Say what is read; nothing is yet.

        Args:
            stream: rows.
            text: makes ids of captions.
            rank, ranks: of this process, of how many.
            batch_size: pictures of a step on all ranks, a multiple of `ranks * micro`.
            micro: pictures of a micro-batch (see `TrainingOptions.micro_batch`).
            first_step, steps: the first step to give, and where to end.
            pack: put the sequences of a micro-batch into one row.
            context: the longest sequence; longer captions are cut at their end. 0 for any.

        Raises:
            BadInput: a picture is longer than the context.
        """
        self.stream, self.text, self.rank, self.ranks = stream, text, rank, ranks
        self.batch_size, self.micro = batch_size, micro
        self.first_step, self.steps, self.pack, self.context = first_step, steps, pack, context
        self.per_step = batch_size // (micro * ranks)
        largest = max(stream.sizes, key=math.prod)
        if context and math.prod(largest) + 2 > context:
            raise BadInput(
                f"pictures of {largest[0]} x {largest[1]} tokens do not fit into the model's context of "
                f"{context}: train on smaller ones, or raise max_position_embeddings in its config.json"
            )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The micro-batches of this rank, or those that fall to this loader worker."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first_step, self.steps):
            done = (step - self.first_step) * self.per_step
            own = [j for j in range(self.per_step) if (done + j) % workers == number]
            if own:
                yield from self._of_step(step, own)

    def _of_step(self, step: int, own: list[int]) -> Iterator[dict[str, Any]]:
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        firsts = [start + (j * self.ranks + self.rank) * self.micro for j in own]
        spans = [range(first, first + self.micro) for first in firsts]
        rows, total = self.stream.read(start, stop, np.array([at for span in spans for at in span]))
        begin = 0
        for span in spans:
            yield self._batch(rows[begin : begin + len(span)], total)
            begin += len(span)

    def _batch(self, rows: list[TrainRow], total: int) -> dict[str, Any]:
        sequences, truncated = self._sequences(rows)
        made = packed(sequences) if self.pack else padded(sequences)
        return {**made, "total": total, "keys": [row.key for row in rows], "truncated": truncated}

    def _sequences(self, rows: list[TrainRow]) -> tuple[Sequences, int]:
        """Text and visual ids of each row, and how many captions were cut."""
        ids = iter(self.text([row.caption for row in rows if row.caption is not None]))
        found, truncated = Sequences(), 0
        for row in rows:
            caption = next(ids) if row.caption is not None else []
            room = self.context - len(row.codes) - 2 if self.context else len(caption)
            truncated += len(caption) > room
            text = [self.text.begin, *caption[:room], self.text.image]
            found.append((text, np.add(row.codes, self.text.size, dtype=np.int64)))
        return found, truncated


class MicroBatchLoader(DataLoader[dict[str, Any]]):
    """Loads `MicroBatches`, in worker processes where asked to, in the same order.

    What is wrong with the data is told as without workers: torch's own loader would put the traceback of
    its worker into the message.
    """

    def __init__(self, batches: MicroBatches, *, workers: int = 0, pin_memory: bool = False) -> None:
        if workers:  # else tokenizers, whose threads a fork loses, says so on the terminal
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        super().__init__(
            _Told(batches) if workers else batches,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
        )

    def __iter__(self) -> Any:
        """The micro-batches.

        Raises:
            BadInput: see `TokenStream.read`.
        """
        for found in super().__iter__():
            if isinstance(found, SarEvalError):
                raise found
            yield found


class _Told(IterableDataset[Any]):
    """Gives an error of ours as the last item."""

    def __init__(self, batches: MicroBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.batches
        except SarEvalError as error:
            yield error


def padded(sequences: Sequences) -> dict[str, torch.Tensor]:
    """Sequences below each other: `input_ids` and `labels` [b, L], filled up on the right."""
    length = max(len(text) + len(codes) for text, codes in sequences)
    ids = np.zeros((len(sequences), length), np.int64)
    labels = np.full_like(ids, IGNORED)
    for row, (text, codes) in enumerate(sequences):
        begin, end = len(text), len(text) + len(codes)
        ids[row, :begin] = text
        ids[row, begin:end] = labels[row, begin:end] = codes
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}


def packed(sequences: Sequences) -> dict[str, torch.Tensor]:
    """Sequences after each other: `input_ids`, `labels` and `position_ids` [1, L]."""
    ids = [part for text, codes in sequences for part in (np.array(text, np.int64), codes)]
    labels = [part for text, codes in sequences for part in (np.full(len(text), IGNORED), codes)]
    positions = [np.arange(len(text) + len(codes)) for text, codes in sequences]
    named = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {name: torch.from_numpy(np.concatenate(parts))[None] for name, parts in named.items()}
