"""What a gate asked and what was answered, in words: the same on the terminal, in Markdown and JUnit."""

from __future__ import annotations

from sar_eval.comparisons import GateResult, Question, Round
from sar_eval.types import Metric


def verdict_words(result: GateResult) -> str:
    """`gate passed: 2 of 2 questions`, `gate failed: 1 of 2 questions did not pass`."""
    total, failed = len(result.questions), len(result.failures)
    questions = f"{total} question{'s' if total > 1 else ''}"
    if failed:
        return f"gate failed: {failed} of {questions} did not pass"
    return f"gate passed: {total} of {questions}"


def question_words(asked: Question, run: str) -> str:
    """`Is demo:sft at most 0.010 worse than the baseline?`"""
    limit = _exact(asked, asked.limit)
    if asked.asked == "floor":
        return f"Is {asked.measure} of {run} at least {limit}?"
    how_much = "at most" if asked.asked == "not-worse" else "more than"
    where = "" if asked.measure == "overall" else f" in {asked.measure}"
    return f"Is {run} {how_much} {limit} worse than the baseline{where}?"


def answer_words(asked: Question) -> str:
    """`Shown: overall +0.003, at least -0.003 with 95 % confidence.`"""
    if asked.asked == "floor":
        return f"{'Yes' if asked.answer == 'yes' else 'No'}: it is {_beside_limit(asked, asked.figure)}."
    if asked.answer == "undecided":
        passes = " So it passes." if asked.passed else ""
        return f"Not shown: {_difference_words(asked)}.{_needed_words(asked)}{passes}"
    is_worse = (asked.asked == "worse") == (asked.answer == "yes")
    start = (
        "Shown" if asked.answer == "yes" else f"No, shown to be {'worse' if is_worse else 'at most that'}"
    )
    bound, end = ("at most", asked.upper) if is_worse else ("at least", asked.lower)
    return f"{start}: {_value(asked)}, {bound} {_beside_limit(asked, end, '+')} {_confidence(asked)}."


def round_words(known: Round) -> str:
    """`144 of 1,440 images: overall -0.785, at least -0.964 and at most -0.606: fail`."""
    figure = Metric(known.measure, None, None, None, 0, known.scale)
    value, low, high = (figure.written(x, "+") for x in (known.value, known.lower, known.upper))
    decision = "go on" if known.decision == "open" and known.images < known.of else known.decision
    return f"{known.drawn}: {known.measure} {value}, at least {low} and at most {high}: {decision}"


def bounds_words(asked: Question) -> str:
    """The one-sided bounds as a table has them; "-" without."""
    if asked.lower is None or asked.upper is None:
        return "-"
    return f"{_beside_limit(asked, asked.lower, '+')} to {_beside_limit(asked, asked.upper, '+')}"


def limit_words(asked: Question) -> str:
    """What the figure, or the difference, was held against."""
    limit = _exact(asked, asked.limit)
    return f"at least {limit}" if asked.asked == "floor" else f"-{limit}"


def written(asked: Question, value: float | None, sign: str = "-") -> str:
    """A value of the question's measure as papers print it; "-" for none."""
    if value is None:
        return "-"
    return Metric(asked.measure, None, None, None, 0, asked.scale).written(value, sign)


def _value(asked: Question) -> str:
    return f"{asked.measure} {written(asked, asked.value, '+')}"


def _difference_words(asked: Question) -> str:
    if asked.lower is None or asked.upper is None:
        return f"{_value(asked)}, of too few prompts to know more"
    low, high = (_beside_limit(asked, bound, "+") for bound in (asked.lower, asked.upper))
    return f"{_value(asked)}, at least {low} and at most {high}, each {_confidence(asked)}"


def _confidence(asked: Question) -> str:
    percent = f"{100 * asked.confidence:.4g}"
    if percent == "100":  # shared out over hundreds of measures; certain it never is
        percent = f"{100 * asked.confidence:.7g}"
    return f"with {percent} % confidence"


def _needed_words(asked: Question) -> str:
    """What would answer the question if the difference is as large as it looks."""
    ways = []
    if asked.prompts_needed is not None:
        ways.append(f"about {asked.prompts_needed:,} prompts")
    if asked.images_needed is not None:
        ways.append(f"about {asked.images_needed:,} images of each of these {asked.prompts:,}")
    return f" More prompts or images are needed: {', or '.join(ways)}." if ways else ""


def _exact(asked: Question, value: float) -> str:
    """A limit as it was given, with no fewer digits than figures have."""
    text = written(asked, value)
    return text if float(text) == value else f"{value:.10g}"


def _beside_limit(asked: Question, value: float | None, sign: str = "-") -> str:
    """A figure or bound, with more digits where it would look like the limit and is not."""
    if value is None:
        return "-"
    limit = asked.limit if asked.asked == "floor" else -asked.limit
    text = written(asked, value, sign)
    return f"{value:{sign}.6f}" if text == written(asked, limit, sign) and value != limit else text
