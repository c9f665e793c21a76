"""Guided sampling for rows that come in pairs, and what says which rows belong together.

A guided image is two sequences, prompted and negative, that share every visual token. An engine that
knows nothing of guidance (vLLM) can draw it if one place sees the scores of both rows, samples, and forces
the token on both. This file is that place and knows no vLLM; `vllm_processor` is its way in.

A pair may fall out of step: one row is missing, or a token ahead. Both rows then get a mark in place of a
token, which ends them, and the driver starts the pair again from the tokens that both have. That loses
nothing and mixes nothing in: rows that emitted the same token at the same place saw it in the same step,
for a row that comes later finds its partner gone or ahead, and is marked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sar_eval.decoding.noise import keys_at
from sar_eval.decoding.sampling import log_probabilities, policy_scores, sample
from sar_eval.types import DrawProtocol


@dataclass(frozen=True, slots=True)
class Layout:
    """How token ids are numbered where only visual tokens have scores: codes, two marks, text ids.

    The scores then are the first columns of the vocabulary, and a token id is its own column.

    Attributes:
        codes: number of visual codes.
        text: number of text ids.
        full: text tokens are sampled too.
    """

    codes: int
    text: int
    full: bool = False

    @property
    def out_of_step(self) -> int:
        """The mark of a row whose partner is elsewhere."""
        return self.codes

    @property
    def fault(self) -> int:
        """The mark of scores that are no numbers."""
        return self.codes + 1

    @property
    def vocabulary(self) -> int:
        """Number of ids, marks included."""
        return self.codes + 2 + self.text

    @property
    def columns(self) -> int:
        """Number of ids that have a score."""
        return self.vocabulary if self.full else self.codes + 2

    def inward(self, ids: Sequence[int]) -> list[int]:
        """Ids of the checkpoint (text first, then codes) in this numbering."""
        return [i - self.text if i >= self.text else i + self.codes + 2 for i in ids]

    def outward(self, ids: Sequence[int]) -> list[int]:
        """Back to the checkpoint's ids; marks have none.

        Raises:
            ValueError: a mark.
        """
        if marks := {self.out_of_step, self.fault} & set(ids):
            raise ValueError(f"{min(marks)} is a mark, no token")
        return [i + self.text if i < self.codes else i - self.codes - 2 for i in ids]

    def rows(self, table: Tensor) -> Tensor:
        """A table with one row for each of the checkpoint's ids, in this order; marks have rows of 0."""
        marks = table.new_zeros((2, *table.shape[1:]))
        return torch.cat([table[self.text :], marks, table[: self.text]])


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the one or two sequences of an image, as a request carries it.

    Attributes:
        pair: the image's name, the same for both branches.
        negative: whether it is the negative branch.
        seed: of the draw.
        start: how many visual tokens are in its prompt already.
        guidance, temperature, top_k, top_p: how to sample (see `DrawProtocol`).
        scored: also tell log-probabilities.
    """

    pair: str
    negative: bool
    seed: int
    start: int = 0
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    scored: bool = False

    def to_args(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_args(cls, data: Mapping[str, Any]) -> Branch:
        """Back from plain data.

        Raises:
            ValueError: a field is missing, unknown or of another kind.
        """
        kinds: dict[str, tuple[type, ...]] = {
            "str": (str,),
            "bool": (bool,),
            "int": (int,),
            "float": (int, float),
        }
        known = {field.name: kinds[str(field.type)] for field in fields(cls)}
        for name, value in data.items():
            if name not in known or not isinstance(value, known[name]):
                raise ValueError(f"a branch has no {name} = {value!r}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @property
    def protocol(self) -> DrawProtocol:
        """What `sampling.sample` wants to know."""
        return DrawProtocol(
            "branch",
            0,
            guidance=self.guidance,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A row of scores: its place in the tensor, whose it is, and how many tokens that request has."""

    place: int
    branch: Branch
    tokens: int


Members = tuple[Row, ...]


def in_step(rows: Sequence[Row]) -> bool:
    """Whether the rows of one image are complete and at the same token."""
    first = rows[0]
    wanted = [False] if first.branch.guidance == 1 else [False, True]
    same = {(row.tokens, row.branch.start) for row in rows}
    return sorted(row.branch.negative for row in rows) == wanted and len(same) == 1 and first.tokens >= 0


class PairSampler:
    """Samples one token for each image of a batch and forces it on the image's rows."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        """Columns get the names that the noise knows them by: a code, or for text a number below 0."""
        self.layout, self.device = layout, device
        codes, text = torch.arange(layout.codes), torch.arange(-layout.text, 0)
        names = torch.cat([codes, text]) if layout.full else codes
        self.names = names.to(torch.int32).to(device)

    def __call__(self, logits: Tensor, rows: Sequence[Row]) -> None:
        """Leave one finite score in each of the rows, that of its token, in place.

        The score is 0; where log-probabilities are asked for (`scored`) it is the token's: in a prompted
        row under the distribution it was drawn from, in a negative row under the prompted branch alone
        (the temperature applied, nothing narrowed).

        Args:
            logits: float32 `[R, columns]`.
            rows: those to deal with; others are left as they are.
        """
        if not rows:
            return
        images: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            images[row.branch.pair].append(row)
        groups: dict[tuple[DrawProtocol, bool], list[Members]] = defaultdict(list)
        lost: list[int] = []
        for members in images.values():
            if in_step(members):
                ordered = tuple(sorted(members, key=lambda row: row.branch.negative))
                groups[ordered[0].branch.protocol, ordered[0].branch.scored].append(ordered)
            else:
                lost += [row.place for row in members]
        forced = [self._draw(logits, group, *how) for how, group in groups.items()]
        self._force(logits, lost, forced)

    def _draw(
        self, logits: Tensor, group: Sequence[Members], protocol: DrawProtocol, scored: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Places, tokens and scores of the rows of images that are sampled alike."""
        prompted = [members[0] for members in group]
        places = [row.place for row in prompted] + [m[1].place for m in group if len(m) > 1]
        seeds = [row.branch.seed for row in prompted]
        keys = keys_at(seeds, [row.branch.start + row.tokens for row in prompted])
        where = self._send(torch.tensor(places))
        seen = self._without_marks(logits.index_select(0, where))
        drawn, sound = sample(seen, self._send(keys), self.names, protocol)
        values = torch.zeros(len(places), device=self.device)
        if scored:
            values = self._scores(seen, drawn, protocol).masked_fill(~sound.repeat(2)[: len(places)], 0)
        columns = torch.where(drawn < self.layout.codes, drawn, drawn + 2)
        tokens = torch.where(sound, columns, self.layout.fault).repeat(len(places) // len(prompted))
        return where, tokens, values

    def _without_marks(self, scores: Tensor) -> Tensor:
        codes = self.layout.codes
        visual = scores[:, :codes]
        return torch.cat([visual, scores[:, codes + 2 :]], 1) if self.layout.full else visual

    def _scores(self, seen: Tensor, tokens: Tensor, protocol: DrawProtocol) -> Tensor:
        drawn_from = log_probabilities(policy_scores(seen, protocol), tokens)
        if protocol.guidance == 1:
            return drawn_from
        alone = seen[: len(tokens)] / (protocol.temperature or 1)
        return torch.cat([drawn_from, log_probabilities(alone, tokens)])

    def _force(self, logits: Tensor, lost: list[int], forced: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        if lost:
            where = self._send(torch.tensor(lost))
            marks = torch.full_like(where, self.layout.out_of_step)
            forced = [*forced, (where, marks, torch.zeros(len(lost), device=self.device))]
        for where, tokens, values in forced:
            # Everything else goes, so that not even a NaN in the row is taken for its greatest score.
            logits.index_fill_(0, where, -torch.inf)
            logits[where, tokens] = values

    def _send(self, values: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        if self.device.type == "cpu":
            return values
        return values.pin_memory().to(self.device, non_blocking=True)
