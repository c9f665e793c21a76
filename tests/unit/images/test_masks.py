import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sar_eval.images.masks import decode_mask, encode_mask


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_decoding_inverts_encoding(mask) -> None:
    encoded = encode_mask(mask)
    assert encoded["size"] == list(mask.shape)
    assert sum(encoded["counts"][1::2]) == mask.sum()
    assert (decode_mask(encoded) == mask).all()


def test_runs_are_column_major_and_start_with_background() -> None:
    mask = np.array([[1, 0], [0, 1]], bool)
    assert encode_mask(mask) == {"size": [2, 2], "counts": [0, 1, 2, 1]}
    assert encode_mask(~mask) == {"size": [2, 2], "counts": [1, 2, 1]}
