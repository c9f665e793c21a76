"""Questions about images, and networks' answers to them; `sar_eval.types` has `Answer`, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A network's answer to one question about one image.

    Attributes:
        text: as the network wrote it.
        yes: whether that counts as yes; None where it is neither yes nor no.
        soft: probability of yes, 0 to 1; None if the network does not give one.
        truncated: the question was longer than the network reads, and its end was cut off.
        error: why there is no answer.
        listed: probabilities of the answers that the question lists (see `Asked`).
    """

    text: str = ""
    yes: bool | None = None
    soft: float | None = None
    truncated: bool = False
    error: str | None = None
    listed: Listed | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that lists the spellings of its answers.

    Attributes:
        text: of the question.
        expect: spellings of the right answer; empty for a question of yes or no in any words.
        against: spellings of the other answers.
        are_pieces: each spelling is a token by its name in the vocabulary (as in PairComp's script),
            instead of the first token of its encoding (as in GenEval 2's).
    """

    text: str
    expect: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    are_pieces: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """Probabilities of the first token of listed answers, among all tokens: they need not add up to 1.

    Attributes:
        mass: sum over the expected spellings; a token that two of them begin with counts twice, as in the
            official scripts, so that it may exceed 1.
        distinct: the same with each token once, and without those that are only blanks.
        against: of the other answers, each token once, without blanks and without those of `distinct`.
        floor: of a server, which names only its likeliest tokens: probability of the last of them, which
            no other token exceeds; None where all probabilities are known.
        unlisted: how many expected spellings are not among them, and count as 0.
    """

    mass: float
    distinct: float
    against: float = 0.0
    floor: float | None = None
    unlisted: int = 0
