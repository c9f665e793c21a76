"""Guided sampling for two sequences per image, independent of vLLM.

A guided image is two sequences, prompted and negative, that share every visual token. An engine without
guidance (vLLM) can draw it if one function reads the logits of both rows, samples, and forces the token on
both. `PairSampler` is that function; `logits_processor` calls it from vLLM.

A pair may get out of sync: one row is missing, or a token ahead. Both rows then get a marker id in place
of a token, which ends their requests, and the driver restarts the pair from the tokens that both have.
The result is the same as without the restart: tokens that both rows have at the same position were sampled
from both rows in the same step, because a row without its partner at the same token gets the marker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sar_eval.decoding.noise import noise_keys_at
from sar_eval.decoding.sampling import sample, sample_and_score
from sar_eval.types import DrawProtocol


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """The numbering of token ids inside vLLM: visual codes, two marker ids, text ids.

    The logits are then the first columns of the vocabulary, and a token id is its own column.

    Attributes:
        codebook_size: number of visual codes.
        text_vocab_size: number of text ids.
        full_vocab: text tokens are sampled too.
    """

    codebook_size: int
    text_vocab_size: int
    full_vocab: bool = False

    @property
    def out_of_sync_id(self) -> int:
        """The marker of a row whose partner is missing or at another token."""
        return self.codebook_size

    @property
    def not_finite_id(self) -> int:
        """The marker of scores that are NaN or infinite."""
        return self.codebook_size + 1

    @property
    def vocab_size(self) -> int:
        """Number of ids, markers included."""
        return self.codebook_size + 2 + self.text_vocab_size

    @property
    def columns(self) -> int:
        """Number of ids that have a logit."""
        return self.vocab_size if self.full_vocab else self.codebook_size + 2

    def to_engine_ids(self, ids: Sequence[int]) -> list[int]:
        """Convert ids of the checkpoint (text first, then codes) to this numbering."""
        text, codes = self.text_vocab_size, self.codebook_size
        return [i - text if i >= text else i + codes + 2 for i in ids]

    def to_checkpoint_ids(self, ids: Sequence[int]) -> list[int]:
        """Convert ids of this numbering to the checkpoint's ids.

        Raises:
            ValueError: there is a marker id among them.
        """
        if markers := {self.out_of_sync_id, self.not_finite_id} & set(ids):
            raise ValueError(f"{min(markers)} is a marker, not a token")
        text, codes = self.text_vocab_size, self.codebook_size
        return [i + text if i < codes else i - codes - 2 for i in ids]

    def reorder_rows(self, table: Tensor) -> Tensor:
        """Reorder a table with one row per checkpoint id to this numbering; markers get rows of 0.

        Rows behind those of the visual codes pad the vocabulary and are left out.
        """
        text, markers = table[: self.text_vocab_size], table.new_zeros((2, *table.shape[1:]))
        codes = table[self.text_vocab_size : self.text_vocab_size + self.codebook_size]
        return torch.cat([codes, markers, text])


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the one or two sequences of an image; sent to the sampler with its request.

    Attributes:
        pair_id: identifies the image; the same for both branches.
        is_negative: whether it is the negative branch.
        seed: of the draw.
        start: number of visual tokens that are already in its prompt.
        guidance, temperature, top_k, top_p, min_p: how to sample (see `DrawProtocol`).
        return_log_probabilities: also return log-probabilities.
    """

    pair_id: str
    is_negative: bool
    seed: int
    start: int = 0
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    return_log_probabilities: bool = False
    min_p: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Branch:
        """Convert from plain data.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        types: dict[str, tuple[type, ...]] = {
            "str": (str,),
            "bool": (bool,),
            "int": (int,),
            "float": (int, float),
        }
        types_of = {field.name: types[str(field.type)] for field in fields(cls)}
        for name, value in data.items():
            if name not in types_of or not isinstance(value, types_of[name]):
                raise ValueError(f"a branch has no {name} = {value!r}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @property
    def protocol(self) -> DrawProtocol:
        """The sampling parameters, for `sampling.sample`."""
        return DrawProtocol(
            "branch",
            0,
            guidance=self.guidance,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
        )


@dataclass(frozen=True, slots=True)
class LogitsRow:
    """A row of logits: its index in the tensor, its branch, and the tokens its request has sampled."""

    index: int
    branch: Branch
    num_tokens: int


PairRows = tuple[LogitsRow, ...]  # one image: its prompted row, and with guidance its negative row
Forced = tuple[Tensor, Tensor, Tensor]  # row indices, token ids and values, each `[rows]`


def in_sync(rows: Sequence[LogitsRow]) -> bool:
    """Whether the rows of one image are complete and at the same token."""
    first = rows[0]
    expected = [False] if first.branch.guidance == 1 else [False, True]
    tokens = {(row.num_tokens, row.branch.start) for row in rows}
    complete = sorted(row.branch.is_negative for row in rows) == expected
    return complete and len(tokens) == 1 and first.num_tokens >= 0


class PairSampler:
    """Samples one token for each image of a batch and forces it on the image's rows."""

    def __init__(self, layout: TokenLayout, device: torch.device) -> None:
        """Compute the noise id of every column: its code, or for text a negative number."""
        self.layout, self.device = layout, device
        codes, text = torch.arange(layout.codebook_size), torch.arange(-layout.text_vocab_size, 0)
        noise_ids = torch.cat([codes, text]) if layout.full_vocab else codes
        self.noise_ids = noise_ids.to(torch.int32).to(device)

    def __call__(self, logits: Tensor, rows: Sequence[LogitsRow]) -> None:
        """Set all logits of each row to -inf except that of its token, in place.

        That one becomes 0, or with `return_log_probabilities` the token's log-probability: in a prompted
        row under the distribution it was sampled from, in a negative row under the prompted branch alone
        (with temperature, without top-k, top-p and min-p).

        Args:
            logits: float32 `[R, columns]`.
            rows: the rows to sample; others are not changed.
        """
        if not rows:
            return
        images: dict[str, list[LogitsRow]] = defaultdict(list)
        for row in rows:
            images[row.branch.pair_id].append(row)
        groups: dict[tuple[DrawProtocol, bool], list[PairRows]] = defaultdict(list)
        out_of_sync: list[int] = []
        for members in images.values():
            if in_sync(members):
                pair = tuple(sorted(members, key=lambda row: row.branch.is_negative))
                branch = pair[0].branch
                groups[branch.protocol, branch.return_log_probabilities].append(pair)
            else:
                out_of_sync += [row.index for row in members]
        forced = [self._sample(logits, group, *parameters) for parameters, group in groups.items()]
        self._force(logits, out_of_sync, forced)

    def _sample(
        self,
        logits: Tensor,
        group: Sequence[PairRows],
        protocol: DrawProtocol,
        return_log_probabilities: bool,
    ) -> Forced:
        """Sample a token for each image of a group with the same sampling parameters."""
        prompted = [pair[0] for pair in group]
        indices = [row.index for row in prompted] + [pair[1].index for pair in group if len(pair) > 1]
        seeds = [row.branch.seed for row in prompted]
        keys = noise_keys_at(seeds, [row.branch.start + row.num_tokens for row in prompted])
        row_indices = self._to_device(torch.tensor(indices))
        token_logits = self._without_markers(logits.index_select(0, row_indices))
        arguments = (token_logits, self._to_device(keys), self.noise_ids, protocol)
        if return_log_probabilities:
            tokens, finite, *log_probs = sample_and_score(*arguments)
            values = torch.cat(log_probs)[: len(indices)].masked_fill(~finite.repeat(2)[: len(indices)], 0)
        else:
            tokens, finite = sample(*arguments)
            values = torch.zeros(len(indices), device=self.device)
        columns = torch.where(tokens < self.layout.codebook_size, tokens, tokens + 2)
        columns = torch.where(finite, columns, self.layout.not_finite_id)
        return row_indices, columns.repeat(len(indices) // len(prompted)), values

    def _without_markers(self, logits: Tensor) -> Tensor:
        """Drop the columns of the marker ids."""
        codes = self.layout.codebook_size
        visual = logits[:, :codes]
        return torch.cat([visual, logits[:, codes + 2 :]], 1) if self.layout.full_vocab else visual

    def _force(self, logits: Tensor, out_of_sync: list[int], forced: list[Forced]) -> None:
        if out_of_sync:
            indices = self._to_device(torch.tensor(out_of_sync))
            markers = torch.full_like(indices, self.layout.out_of_sync_id)
            forced = [*forced, (indices, markers, torch.zeros(len(out_of_sync), device=self.device))]
        for indices, tokens, values in forced:
            # Fill the whole row, so that a NaN in it cannot become its maximum.
            logits.index_fill_(0, indices, -torch.inf)
            logits[indices, tokens] = values

    def _to_device(self, values: Tensor) -> Tensor:
        """Copy to the device without waiting for the copy."""
        if self.device.type == "cpu":
            return values
        return values.pin_memory().to(self.device, non_blocking=True)
