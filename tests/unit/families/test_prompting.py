"""The texts of a draw: prefixes fixed and random, and the negative prompt."""

from sar_eval.families.prompting import PRESETS, SIMPLEAR_PREFIXES, prompt_texts
from sar_eval.types import DrawProtocol, Prompt, make_draw


def test_random_prefixes_come_from_the_draws_seed() -> None:
    preset = PRESETS["simplear-paper"]
    protocol = DrawProtocol("simplear-paper", 1024, **preset)
    draws = [make_draw(Prompt(f"p{i}", "a dog"), 0, 0) for i in range(400)]
    texts = [prompt_texts(protocol, draw) for draw in draws]
    assert texts == [prompt_texts(protocol, draw) for draw in draws]
    assert {prompt.removesuffix("a dog") for prompt, _ in texts} == set(SIMPLEAR_PREFIXES)
    assert {n.removesuffix(preset["negative_prompt"]) for _, n in texts} == set(SIMPLEAR_PREFIXES)
    same = sum(p.removesuffix("a dog") == n.removesuffix(preset["negative_prompt"]) for p, n in texts)
    assert same < 60  # two prefixes, drawn one without the other


def test_the_fixed_prefix_is_not_for_the_negative_prompt() -> None:
    protocol = DrawProtocol("simplear", 1024, **PRESETS["simplear"])
    prompt, negative = prompt_texts(protocol, make_draw(Prompt("p", "a dog"), 0, 0))
    assert prompt == "A highly realistic image of a dog"
    assert negative.startswith("An image of aerial view, overexposed")
