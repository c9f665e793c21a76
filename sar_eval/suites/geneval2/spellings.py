"""The spellings whose first tokens' probabilities are the score of an answer."""

from __future__ import annotations

from sar_eval.errors import BadInput

COUNTING = "How many"  # how a question begins whose answer is a number
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS, 1)}
OTHER = "other"  # what the script spells in place of the digits of a word that it does not know
YES, NO = ((word.capitalize(), word, f" {word}", f" {word.capitalize()}") for word in ("yes", "no"))


def number_spellings(word: str) -> tuple[str, ...]:
    """Spellings of a number word, as in the script; those of an unknown one end in `other`."""
    spelled, digits = (word, word.capitalize()), DIGITS.get(word, OTHER)
    return (*spelled, *(f" {text}" for text in spelled), digits, f" {digits}")


def official_spellings(question: str, answer: str) -> tuple[str, ...]:
    """What the script takes for the answer; any question but `How many ...` is one of yes or no."""
    return number_spellings(answer) if question.startswith(COUNTING) else YES


def spellings(question: str, answer: str, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Spellings of the expected answer and of all others that the suite knows.

    Args:
        question: as in the suite.
        answer: "Yes", or a number word from one to ten for a question `How many ...`.
        where: file and line.

    Raises:
        BadInput: another answer, for which the script would silently look for something else.
    """
    if question.startswith(COUNTING):
        if answer not in DIGITS:
            raise BadInput(f"{where}: {answer!r} is no number from one to ten, which alone have spellings")
        others = [number_spellings(word) for word in NUMBERS if word != answer]
        return official_spellings(question, answer), tuple(text for texts in others for text in texts)
    if answer != "Yes":
        raise BadInput(
            f"{where}: the answer {answer!r} of {question!r}: only `{COUNTING} ...` has another than Yes"
        )
    return YES, NO
