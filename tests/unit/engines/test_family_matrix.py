"""Each family's tokens, sampled and greedy, are the same from each engine, alone and in a batch."""

from __future__ import annotations

import pytest

from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from tests.family_cases import FAMILY_CASES, plan_otherwise, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=FAMILY_CASES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return FAMILY_CASES[family].checkpoint(tmp_path_factory.mktemp(family))


@pytest.mark.parametrize("kind", FAMILY_CASES["janus"].protocols())
def test_every_engine_draws_the_same_tokens(family: str, checkpoint: str, kind: str) -> None:
    case = FAMILY_CASES[family]
    protocol, draws = case.protocols()[kind], case.draws()
    alone = tokens(NativeEngine(checkpoint, protocol, batch_size=1), draws)
    assert len(set(alone.values())) > 1
    # Three in a wave of several lengths, and all.
    for batch_size in (3, 8):
        assert tokens(NativeEngine(checkpoint, protocol, batch_size=batch_size), draws) == alone
    assert tokens(NativeEngine(checkpoint, protocol, speculate=True), draws) == alone
    if reason := dict(case.refused_by).get("hf"):
        with pytest.raises(BadInput, match=reason):
            HfEngine(checkpoint, protocol)
        return
    for batch_size in (1, 3):
        assert tokens(HfEngine(checkpoint, protocol, batch_size=batch_size), draws) == alone


def test_a_plan_may_force_tokens_and_have_three_branches_and_weights_by_code(
    family: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = FAMILY_CASES[family]
    plain = tokens(NativeEngine(checkpoint, case.protocol), case.draws())
    plan_otherwise(monkeypatch, checkpoint)
    alone = tokens(NativeEngine(checkpoint, case.protocol, batch_size=1), case.draws())
    assert all(alone[key] != plain[key] for key in plain)
    assert {len(codes) for codes in alone.values()} == {16}
    assert tokens(NativeEngine(checkpoint, case.protocol, batch_size=3), case.draws()) == alone
    assert tokens(NativeEngine(checkpoint, case.protocol, speculate=True), case.draws()) == alone
    if "hf" not in dict(case.refused_by):
        assert tokens(HfEngine(checkpoint, case.protocol, batch_size=3), case.draws()) == alone
