"""What the decoding loop is told of an image."""

import pytest

from sar_eval.families.image_plan import ImagePlan


def test_a_grid_has_as_many_codes_as_places() -> None:
    assert ImagePlan(3, 5).codes == 15


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, -1)])
def test_a_grid_without_a_token_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{height} rows of {width} tokens"):
        ImagePlan(height, width)
