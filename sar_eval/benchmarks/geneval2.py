"""GenEval 2: Soft-TIFA, means of the probability of the expected answer; also by skill and atomicity.

Every figure is 100 times a mean, as the official scripts print them. `overall` is the geometric mean (a
prompt is drawn well if all of it is), `arithmetic` the mean over a prompt's questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import Any

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.geneval2.scoring import SKILLS, arithmetic_mean, geometric_mean
from sar_eval.suites.listed_answers import Answered, AnsweredImage, answered_images
from sar_eval.types import Prompt, Verdict

SCALE = 100
Value = Callable[[Answered], float]


class Geneval2Fold:
    """Both scorings of the same answers; where a server answered, also how far its floor can be off."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `arithmetic`, `tifa`, `listed_mass`, `skill/*`, `atomicity/*`; `reference/*`.

        In the corrected figures a token counts once and a blank never. `listed_mass` is the probability
        of all answers that a question can have: where it is low, the judge answers something else.
        `floor/overall_at_most` is what `overall` would be if all that a server hid had the probability of
        its last token, `floor/hidden_questions` the share of questions with a score of 0 because of that.
        Skills and atomicities without an image are absent.

        Raises:
            BadInput: a prompt has no questions or no atom_count, or the evidence is another suite's.
        """
        images = list(answered_images(prompts, verdicts, "geneval2"))
        return (
            *_means("", images, lambda answer: answer.listed.distinct),
            _of_images("tifa", images, lambda answer: float(answer.yes), arithmetic_mean),
            _of_images("listed_mass", images, _listed, arithmetic_mean),
            *_floor(images),
            *_details("", images, lambda answer: answer.listed.distinct),
            *_means("reference/", images, lambda answer: answer.listed.mass),
            *_details("reference/", images, lambda answer: answer.listed.mass),
            _quirk(images),
        )


def _listed(answer: Answered) -> float:
    return answer.listed.distinct + answer.listed.against


def _means(prefix: str, images: Sequence[AnsweredImage], value: Value) -> list[Measure]:
    return [
        _of_images(f"{prefix}overall", images, value, geometric_mean),
        _of_images(f"{prefix}arithmetic", images, value, arithmetic_mean),
    ]


def _details(prefix: str, images: Sequence[AnsweredImage], value: Value) -> list[Measure]:
    """Skills as means over questions, atomicities as means over prompts' geometric means."""
    skills = {answer.question.category for image in images for answer in image.answers}
    by_atoms: dict[int, list[AnsweredImage]] = {}
    for image in images:
        by_atoms.setdefault(_atoms(image), []).append(image)
    return [
        *(
            _measure(f"{prefix}skill/{skill}", list(_skill_rows(skill, images, value)))
            for skill in [s for s in SKILLS if s in skills] + sorted(skills - set(SKILLS))
        ),
        *(
            _of_images(f"{prefix}atomicity/{atoms}_atoms", by_atoms[atoms], value, geometric_mean)
            for atoms in sorted(by_atoms)
        ),
    ]


def _skill_rows(skill: str, images: Iterable[AnsweredImage], value: Value) -> Iterable[Row]:
    for image in images:
        scores = [value(answer) for answer in image.answers if answer.question.category == skill]
        if scores:
            yield image.prompt.id, image.index, fsum(scores), float(len(scores))


def _floor(images: Sequence[AnsweredImage]) -> list[Measure]:
    """How much a server's floor can matter; nothing where all probabilities are known."""
    if all(answer.listed.floor is None for image in images for answer in image.answers):
        return []
    return [
        _of_images("floor/overall_at_most", images, lambda answer: answer.most, geometric_mean),
        _of_images("floor/hidden_questions", images, _is_hidden, arithmetic_mean),
    ]


def _is_hidden(answer: Answered) -> float:
    return float(answer.listed.unlisted > 0 and not answer.listed.distinct)


def _quirk(images: Sequence[AnsweredImage]) -> Measure:
    """What the reference's `overall` would gain if tokens counted once and blanks never."""
    before = [geometric_mean([answer.listed.mass for answer in image.answers]) for image in images]
    after = [geometric_mean([answer.listed.distinct for answer in image.answers]) for image in images]
    rows = [
        (image.prompt.id, image.index, new - old, 1.0)
        for image, old, new in zip(images, before, after, strict=True)
    ]
    affected = sum(old != new for old, new in zip(before, after, strict=True))
    return _measure("quirk/repeated_and_blank_tokens", rows, count=affected, is_effect=True)


def _of_images(
    name: str, images: Sequence[AnsweredImage], value: Value, mean: Callable[[Sequence[float]], float]
) -> Measure:
    """The mean over images of a mean over their questions."""
    rows = [
        (image.prompt.id, image.index, mean([value(answer) for answer in image.answers]), 1.0)
        for image in images
    ]
    return _measure(name, rows)


def _atoms(image: AnsweredImage) -> int:
    atoms = image.prompt.checks.get("atom_count")
    if not isinstance(atoms, int) or isinstance(atoms, bool):
        raise BadInput(
            f"prompt {image.prompt.id}: no atom_count: the fold geneval2 reads GenEval 2's suite"
        )
    return atoms


def _measure(name: str, rows: Sequence[Row], **known: Any) -> Measure:
    return Measure(name, (stratum(rows),) if rows else (), SCALE, **known)


BENCHMARK = Geneval2Fold
