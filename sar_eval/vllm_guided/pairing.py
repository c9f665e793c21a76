"""Guided sampling for the sequences of an image, independent of vLLM.

A guided image is two sequences, prompted and negative, that share every visual token (with other families
one more). An engine without guidance (vLLM) can draw it if one function reads the logits of both rows,
samples, and forces the token on both. `PairSampler` is that function; `logits_processor` calls it from
vLLM. What an image's plan forces, such as an end of line, it forces without sampling.

A pair may get out of sync: one row is missing, or a token ahead. Both rows then get a marker id in place
of a token, which ends their requests, and the driver restarts the pair from the tokens that both have.
The result is the same as without the restart: tokens that both rows have at the same position were sampled
from both rows in the same step, because a row without its partner at the same token gets the marker.
"""

from __future__ import annotations

from bisect import bisect_left
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
        forced_ids: ids of the checkpoint, of text, that plans force, in ascending order. They come before
            the other text ids, so that each has a column.
    """

    codebook_size: int
    text_vocab_size: int
    full_vocab: bool = False
    forced_ids: tuple[int, ...] = ()

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
        return self.vocab_size if self.full_vocab else self.codebook_size + 2 + len(self.forced_ids)

    @property
    def text_order(self) -> list[int]:
        """The checkpoint's text ids in the order of this numbering."""
        forced = set(self.forced_ids)
        return [*self.forced_ids, *(i for i in range(self.text_vocab_size) if i not in forced)]

    def to_engine_ids(self, ids: Sequence[int]) -> list[int]:
        """Convert ids of the checkpoint (text first, then codes) to this numbering."""
        text = self.text_vocab_size
        return [i - text if i >= text else self._text_to_engine(i) for i in ids]

    def to_checkpoint_ids(self, ids: Sequence[int]) -> list[int]:
        """Convert ids of this numbering to the checkpoint's ids.

        Raises:
            ValueError: there is a marker id among them.
        """
        if markers := {self.out_of_sync_id, self.not_finite_id} & set(ids):
            raise ValueError(f"{min(markers)} is a marker, not a token")
        text, codes = self.text_vocab_size, self.codebook_size
        return [i + text if i < codes else self._text_to_checkpoint(i) for i in ids]

    def _text_to_engine(self, text_id: int) -> int:
        first, forced = self.codebook_size + 2, self.forced_ids
        before = bisect_left(forced, text_id)
        if text_id in forced[before : before + 1]:
            return first + before
        return first + len(forced) + text_id - before

    def _text_to_checkpoint(self, engine_id: int) -> int:
        place, forced = engine_id - self.codebook_size - 2, self.forced_ids
        if place < len(forced):
            return forced[place]
        text_id = place - len(forced)
        for forced_id in forced:
            text_id += forced_id <= text_id
        return text_id

    def reorder_rows(self, table: Tensor) -> Tensor:
        """Reorder a table with one row per checkpoint id to this numbering; markers get rows of 0.

        Rows behind those of the visual codes pad the vocabulary and are left out.
        """
        text, markers = table[: self.text_vocab_size], table.new_zeros((2, *table.shape[1:]))
        codes = table[self.text_vocab_size : self.text_vocab_size + self.codebook_size]
        if self.forced_ids:
            text = text[torch.tensor(self.text_order, device=table.device)]
        return torch.cat([codes, markers, text])

    def reorder_head(self, rows: Tensor) -> Tensor:
        """Rows or biases of a head in the order of the columns.

        Args:
            rows: one for each id of the checkpoint; or for each code alone, of a head that predicts no
                text, where what is forced gets rows of 0.
        """
        if len(rows) >= self.text_vocab_size + self.codebook_size:
            return self.reorder_rows(rows)[: self.columns]
        others = rows.new_zeros((self.columns - self.codebook_size, *rows.shape[1:]))
        return torch.cat([rows[: self.codebook_size], others])


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the sequences of an image; sent to the sampler with its request.

    Attributes:
        pair_id: identifies the image; the same for all its branches.
        index: 0 for the prompted branch, 1 for the negative one, or that of K branches.
        seed: of the draw.
        start: number of the image's tokens that are already in its prompt, forced ones included.
        guidance, temperature, top_k, top_p, min_p: how to sample (see `DrawProtocol`).
        return_log_probabilities: also return log-probabilities.
        weights: how guidance combines K branches (see `ImagePlan`); empty for `guidance` of one or two.
        forced: slots of the image with the engine's ids of the tokens that are not sampled, ascending.
    """

    pair_id: str
    index: int
    seed: int
    start: int = 0
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    return_log_probabilities: bool = False
    min_p: float = 0.0
    weights: Sequence[Sequence[float]] = ()
    forced: Sequence[Sequence[int]] = ()

    @property
    def branches(self) -> int:
        """K, branches of its image."""
        if self.weights:
            return len(self.weights[0]) + 1
        return 1 if self.guidance == 1 else 2

    def place(self, slot: int) -> tuple[int, int | None]:
        """Number of the code in a slot of the image, or of the next one; and what is forced there."""
        forced_before = bisect_left(self.forced, slot, key=lambda pair: pair[0])
        here = self.forced[forced_before : forced_before + 1]
        forced_id = here[0][1] if here and here[0][0] == slot else None
        return slot - forced_before, forced_id

    def weights_of(self, code: int) -> Sequence[float] | None:
        """Weights of one of the codes; None for those of `guidance`."""
        return self.weights[code if len(self.weights) > 1 else 0] if self.weights else None

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
        types_of = {field.name: types.get(str(field.type), (list, tuple)) for field in fields(cls)}
        for name, value in data.items():
            if name not in types_of or not isinstance(value, types_of[name]):
                raise ValueError(f"a branch has no {name} = {value!r}")
            if isinstance(value, (list, tuple)) and not all(map(_are_numbers, value)):
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

    @property
    def slot(self) -> int:
        """Of the image, that its next token is for."""
        return self.branch.start + self.num_tokens


def _are_numbers(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, (int, float)) for value in values)


PairRows = tuple[LogitsRow, ...]  # one image: its prompted row, then that of each other branch
Forced = tuple[Tensor, Tensor, Tensor]  # row indices, token ids and values, each `[rows]`


def in_sync(rows: Sequence[LogitsRow]) -> bool:
    """Whether the rows of one image are complete and at the same token."""
    first = rows[0]
    tokens = {(row.num_tokens, row.branch.start) for row in rows}
    complete = sorted(row.branch.index for row in rows) == list(range(first.branch.branches))
    return complete and len(tokens) == 1 and first.num_tokens >= 0


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What images have in common that are sampled together; `weights` is None for those of each image."""

    protocol: DrawProtocol
    return_log_probabilities: bool
    branches: int
    weights: tuple[float, ...] | None


class PairSampler:
    """Samples one token for each image of a batch and forces it on the image's rows."""

    def __init__(self, layout: TokenLayout, device: torch.device) -> None:
        """Compute the noise id of every column: its code, or for text a negative number."""
        self.layout, self.device = layout, device
        noise_ids = torch.arange(layout.codebook_size)
        if layout.full_vocab:
            text = torch.tensor(layout.text_order, dtype=torch.int64) - layout.text_vocab_size
            noise_ids = torch.cat([noise_ids, text])
        self.noise_ids = noise_ids.to(torch.int32).to(device)

    def __call__(self, logits: Tensor, rows: Sequence[LogitsRow]) -> None:
        """Set all logits of each row to -inf except that of its token, in place.

        That one becomes 0, or with `return_log_probabilities` the token's log-probability: in a prompted
        row under the distribution it was sampled from, in a negative row under the prompted branch alone
        (with temperature, without top-k, top-p and min-p). A third row has none, nor has what is forced.

        Args:
            logits: float32 `[R, columns]`.
            rows: the rows to sample; others are not changed.
        """
        if not rows:
            return
        images: dict[str, list[LogitsRow]] = defaultdict(list)
        for row in rows:
            images[row.branch.pair_id].append(row)
        groups: dict[_Parameters, list[PairRows]] = defaultdict(list)
        given: list[tuple[int, int]] = []  # rows whose token is not sampled, and that token
        for members in images.values():
            pair = tuple(sorted(members, key=lambda row: row.branch.index))
            code, forced_id = pair[0].branch.place(pair[0].slot)
            if not in_sync(pair):
                given += [(row.index, self.layout.out_of_sync_id) for row in pair]
            elif forced_id is not None:
                given += [(row.index, forced_id) for row in pair]
            else:
                groups[_parameters(pair[0].branch, code)].append(pair)
        forced = [self._sample(logits, group, parameters) for parameters, group in groups.items()]
        self._force(logits, given, forced)

    def _sample(self, logits: Tensor, group: Sequence[PairRows], parameters: _Parameters) -> Forced:
        """Sample a token for each image of a group with the same sampling parameters."""
        number, branches = len(group), parameters.branches
        prompted = [pair[0] for pair in group]
        codes = [row.branch.place(row.slot)[0] for row in prompted]
        keys = noise_keys_at([row.branch.seed for row in prompted], codes)
        row_indices = self._to_device(
            torch.tensor([row.index for rows in zip(*group, strict=True) for row in rows])
        )
        weights: Sequence[float] | Tensor | None = parameters.weights
        if prompted[0].branch.weights and weights is None:
            own = [row.branch.weights_of(code) for row, code in zip(prompted, codes, strict=True)]
            weights = self._to_device(torch.tensor(own, dtype=torch.float32))
        arguments = (
            self._without_markers(logits.index_select(0, row_indices)),
            self._to_device(keys),
            self.noise_ids,
            parameters.protocol,
            weights,
        )
        values = torch.zeros(branches * number, device=self.device)
        if parameters.return_log_probabilities:
            tokens, finite, *log_probs = sample_and_score(*arguments)
            scored = torch.cat(log_probs)[: len(values)]
            values[: len(scored)] = scored.masked_fill(~finite.repeat(2)[: len(scored)], 0)
        else:
            tokens, finite = sample(*arguments)
        columns = torch.where(tokens < self.layout.codebook_size, tokens, tokens + 2)
        columns = torch.where(finite, columns, self.layout.not_finite_id)
        return row_indices, columns.repeat(branches), values

    def _without_markers(self, logits: Tensor) -> Tensor:
        """Drop the columns of the marker ids, and of what cannot be sampled."""
        codes = self.layout.codebook_size
        visual = logits[:, :codes]
        return torch.cat([visual, logits[:, codes + 2 :]], 1) if self.layout.full_vocab else visual

    def _force(self, logits: Tensor, given: list[tuple[int, int]], forced: list[Forced]) -> None:
        if given:
            indices, tokens = (self._to_device(torch.tensor(each)) for each in zip(*given, strict=True))
            forced = [*forced, (indices, tokens, torch.zeros(len(given), device=self.device))]
        for indices, tokens, values in forced:
            # Fill the whole row, so that a NaN in it cannot become its maximum.
            logits.index_fill_(0, indices, -torch.inf)
            logits[indices, tokens] = values

    def _to_device(self, values: Tensor) -> Tensor:
        """Copy to the device without waiting for the copy."""
        if self.device.type == "cpu":
            return values
        return values.pin_memory().to(self.device, non_blocking=True)


def _parameters(branch: Branch, code: int) -> _Parameters:
    """What it is sampled with; weights that all codes share are numbers, as in `native`."""
    shared = branch.weights_of(code) if len(branch.weights) == 1 else None
    weights = None if shared is None else tuple(map(float, shared))
    return _Parameters(branch.protocol, branch.return_log_probabilities, branch.branches, weights)
