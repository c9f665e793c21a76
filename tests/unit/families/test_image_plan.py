"""What the decoding loop is told of an image."""

import pytest

from sar_eval.families.emu3_prompts import SpecialIds, code_steps, forced_tokens
from sar_eval.families.image_plan import ImagePlan, guidance_weights


def test_a_grid_has_as_many_codes_as_places() -> None:
    assert ImagePlan(3, 5).codes == 15


def test_guidance_1_needs_no_negative_branch() -> None:
    assert ImagePlan(2, 2, guidance_weights(1)).branches == 1
    assert ImagePlan(2, 2, guidance_weights(6.0)).branches == 2
    assert guidance_weights(6.0) == ((6.0,),)
    assert ImagePlan(1, 2, ((3.0, 1.2), (3.0, 1.0))).branches == 3


@pytest.mark.parametrize(("height", "width"), [(3, 4), (1, 1), (4, 1), (2, 2), (1, 7), (90, 90)])
def test_codes_lie_between_emu3s_forced_tokens(height: int, width: int) -> None:
    plan = ImagePlan(height, width, forced=forced_tokens(height, width, SpecialIds(*range(8))))
    assert plan.code_slots == code_steps(height, width)
    assert (plan.codes, plan.slots) == (height * width, height * (width + 1) - 1)


def test_without_forced_tokens_slots_are_codes() -> None:
    assert ImagePlan(2, 3).code_slots == [0, 1, 2, 3, 4, 5]
    assert ImagePlan(2, 3).slots == 6


@pytest.mark.parametrize("slot", [0, -1, 5])
def test_a_forced_token_that_has_no_place_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match=f"a forced token in slot {slot}: 1 to 4 are possible"):
        ImagePlan(2, 2, forced={slot: 9})


@pytest.mark.parametrize("weights", [(), ((2.0,),) * 3, ((), (2.0,), (), ())], ids=str)
def test_weights_are_for_all_tokens_or_for_each(weights: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match=f"weights of {len(weights)} tokens, for 4 or for all alike"):
        ImagePlan(2, 2, weights)


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, -1)])
def test_a_grid_without_a_token_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{height} rows of {width} tokens"):
        ImagePlan(height, width)
