"""A tiny checkpoint of each token family, for what holds for all of them: one entry here, and it joins.

Their heads are at least 32 wide, so that vLLM draws with them on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.families.family import TokenCheckpoint
from sar_eval.families.image_plan import ImagePlan
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw
from tests import tiny_emu3, tiny_janus, tiny_llamagen
from tests.tiny_simplear import write_simplear

# Of several lengths, one of them empty, one twice.
TEXTS = ("a red ring", "a", "two blue stars above a green heart", "", "a red ring")


@dataclass(frozen=True)
class FamilyCase:
    """A checkpoint, and what to ask of it.

    Attributes:
        checkpoint: writes one into a folder and returns its name.
        protocol: of guided draws.
        refused_by: engines that do not draw with the family, and a regular expression of their reason.
        texts: of the draws.
    """

    checkpoint: Callable[[Path], str]
    protocol: DrawProtocol
    refused_by: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = TEXTS

    def protocols(self) -> dict[str, DrawProtocol]:
        """Guidance on and off, greedy, and what cuts the distribution."""
        return {
            "guided": self.protocol,
            "unguided": replace(self.protocol, guidance=1.0),
            "greedy": replace(self.protocol, temperature=0.0),
            "cut": replace(self.protocol, top_k=9, top_p=0.9, temperature=0.8),
        }

    def draws(self) -> list[Draw]:
        """One of each text."""
        return [make_draw(Prompt(f"p{n}", text), 0, 5) for n, text in enumerate(self.texts)]


FAMILY_CASES = {
    "simplear": FamilyCase(
        lambda folder: str(write_simplear(folder)),
        DrawProtocol("test", 32, guidance=3.0, negative_prompt="a cross"),
        texts=tuple(text for text in TEXTS if text),
    ),
    "janus": FamilyCase(
        lambda folder: str(tiny_janus.write_janus(folder / "janus", llama=tiny_janus.WIDE_LLAMA)),
        DrawProtocol("test", tiny_janus.SIDE, guidance=5.0),
    ),
    "emu3": FamilyCase(
        lambda folder: str(tiny_emu3.write_emu3(folder / "emu3", llama=tiny_emu3.WIDE_LLAMA)),
        DrawProtocol(
            "test", tiny_emu3.SIDE, guidance=3.0, template="emu3", negative_prompt="ugly", top_k=11
        ),
    ),
    "llamagen": FamilyCase(
        lambda folder: str(tiny_llamagen.write_llamagen(folder / "llamagen")),
        DrawProtocol("test", tiny_llamagen.SIDE, guidance=7.5, truncate=True, top_k=11),
        refused_by=(
            ("hf", "names none: use --engine native"),
            ("vllm", "angles are of places in the picture"),
        ),
    ),
}


def plan_otherwise(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the family of a checkpoint draw by a plan that asks for all that a plan can ask for.

    Three branches, the third without the prompt's first tokens; weights of their own for each code; and a
    forced token at the end of each line, the first line's another than the others'.
    """
    kind = type(find_checkpoint(name))
    branches = kind.branches

    def plan(self: TokenCheckpoint, protocol: DrawProtocol, grid: tuple[int, int]) -> ImagePlan:
        height, width = grid
        ends = [(width + 1) * line + width for line in range(height)]
        weights = tuple((1.5 + 0.25 * code, 0.5 - 0.1 * code) for code in range(height * width))
        forced = {slot: 11 if line else 5 for line, slot in enumerate(ends)}
        if self.decoder_config.switches.grid:
            forced = {}  # each token has its place in the picture, and there is none for others
        return ImagePlan(height, width, weights, forced)

    def rows(self: TokenCheckpoint, *arguments: Any) -> tuple[Any, ...]:
        prompted, negative = branches(self, *arguments)
        return prompted, negative, prompted[-2:]

    monkeypatch.setattr(kind, "plan", plan)
    monkeypatch.setattr(kind, "branches", rows)


def tokens(engine: TokenEngine, draws: Iterable[Draw]) -> dict[str, tuple[int, ...]]:
    """The codes of each draw, by its key."""
    with engine:
        return tokens_of(engine, draws)


def tokens_of(engine: TokenEngine, draws: Iterable[Draw]) -> dict[str, tuple[int, ...]]:
    """The codes of each draw, of an engine that has been started."""
    drawn = {generation.key: generation for generation in engine.generate(list(draws))}
    errors: dict[str, Any] = {key: g.error for key, g in drawn.items() if g.error is not None}
    assert errors == {}
    return {key: generation.tokens for key, generation in drawn.items()}
