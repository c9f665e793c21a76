"""What the decoding loop is told of an image."""

import pytest

from sar_eval.families.image_plan import ImagePlan, guidance_weights


def test_a_grid_has_as_many_codes_as_places() -> None:
    assert ImagePlan(3, 5).codes == 15


def test_guidance_1_needs_no_negative_branch() -> None:
    assert ImagePlan(2, 2, guidance_weights(1)).branches == 1
    assert ImagePlan(2, 2, guidance_weights(6.0)).branches == 2
    assert guidance_weights(6.0) == ((6.0,),)
    assert ImagePlan(1, 2, ((3.0, 1.2), (3.0, 1.0))).branches == 3


@pytest.mark.parametrize("weights", [(), ((2.0,),) * 3, ((), (2.0,), (), ())], ids=str)
def test_weights_are_for_all_tokens_or_for_each(weights: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match=f"weights of {len(weights)} tokens, for 4 or for all alike"):
        ImagePlan(2, 2, weights)


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, -1)])
def test_a_grid_without_a_token_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{height} rows of {width} tokens"):
        ImagePlan(height, width)
