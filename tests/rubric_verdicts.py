"""Verdicts of the judge `rubric` as a recipe's own reader makes them of given replies, without a model."""

from collections.abc import Sequence
from functools import cache

from sar_eval.errors import BadInput
from sar_eval.judges.rubric import RULE_OPTIONS
from sar_eval.recipe import load_recipe
from sar_eval.suites.rubric.readers import UnreadReply
from sar_eval.suites.rubric.rules import Rule, make_rule
from sar_eval.types import Prompt, Verdict


@cache
def _rule(recipe: str) -> Rule:
    options = load_recipe(recipe).judge_options
    return make_rule({name: options[name] for name in RULE_OPTIONS if name in options}, recipe)


def rubric_verdict(recipe: str, prompt: Prompt, index: int, replies: Sequence[str | None]) -> Verdict:
    """The verdict on a picture about which the model said this, one reply a try."""
    key, evidence = f"{prompt.id}/{index}", {"replies": list(replies), "tries": len(replies), "values": {}}
    for reply in replies:
        try:
            values = _rule(recipe).read(reply or "", prompt)
            score = _rule(recipe).score(values, prompt)
        except UnreadReply:
            continue
        except BadInput as error:  # of the prompt's checks
            return Verdict(key, "rubric", "1", error=str(error), evidence=evidence)
        return Verdict(key, "rubric", "1", score=score, evidence={**evidence, "values": dict(values)})
    return Verdict(key, "rubric", "1", error="unread", evidence=evidence)
