"""Which pictures become pairs, and the loss of preferring the better one."""

import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sar_eval.rl.judged_draws import JudgedDraw, JudgedRun
from sar_eval.rl.preferences import preference_loss, preference_pairs
from sar_eval.types import Draw, Prompt


def _run(scores: dict[str, list[float | None]]) -> JudgedRun:
    draws = [
        JudgedDraw(Draw(Prompt(id_, id_), n, n), (id_, ""), np.zeros(4, np.int32), score, Path("run"))
        for id_, found in scores.items()
        for n, score in enumerate(found)
    ]
    return JudgedRun(Path("run"), "", None, None, "shapes", "", tuple(draws), 0)


SCORES = {"a": [0.1, 0.9, None, 0.5, 0.9, 0.1], "b": [1.0, 1.0], "c": [0.4], "d": [None, 0.3, 0.2]}


@pytest.mark.parametrize(
    ("per_prompt", "min_margin", "expected"),
    [
        (1, 0.0, ["a1-a5", "d1-d2"]),
        (2, 0.0, ["a1-a5", "a4-a0", "d1-d2"]),
        (9, 0.0, ["a1-a5", "a4-a0", "d1-d2"]),
        (9, 0.2, ["a1-a5", "a4-a0"]),
        (9, 0.9, []),
    ],
)
def test_pairs_are_the_best_with_the_worst(per_prompt: int, min_margin: float, expected: list[str]) -> None:
    """No picture is in two pairs, equal scores make none, and what has no score is in none."""
    found = preference_pairs([_run(SCORES)], per_prompt, min_margin)
    names = ["-".join(f"{d.prompt}{d.draw.index}" for d in (p.chosen, p.rejected)) for p in found]
    assert names == expected


def test_pairs_are_made_across_runs() -> None:
    [pair] = preference_pairs([_run({"a": [0.2]}), _run({"a": [0.7]})])
    assert (pair.chosen.score, pair.rejected.score) == (0.7, 0.2)


def test_the_loss_by_hand() -> None:
    log_ratios = torch.tensor([[0.0, 2.0, 1.0], [0.0, -1.0, 3.0]])
    found = preference_loss(log_ratios, tokens=4, beta=0.5)
    expected = [math.log(2), math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(1.0))]
    assert found.loss.tolist() == pytest.approx(expected)
    assert found.chosen.tolist() == [0.0, 1.0, 0.5]
    assert found.rejected.tolist() == [0.0, -0.5, 1.5]
    ipo = preference_loss(log_ratios, tokens=4, beta=0.5, loss="ipo")
    assert ipo.loss.tolist() == pytest.approx([1.0, (0.75 - 1) ** 2, (-0.5 - 1) ** 2])


def test_the_gradient_raises_the_chosen_and_lowers_the_rejected() -> None:
    log_ratios = torch.zeros(2, 3, requires_grad=True)
    preference_loss(log_ratios, tokens=4, beta=0.5).loss.sum().backward()
    assert log_ratios.grad is not None
    assert log_ratios.grad.tolist() == [[-0.25] * 3, [0.25] * 3]


class _Totals:
    """What TRL's loss asks of accelerate."""

    device = "cpu"
    gather = gather_for_metrics = staticmethod(lambda tensor: tensor)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_the_loss_is_trls(name: str) -> None:
    """On the same log-probabilities of 3 pairs of 5 tokens after prompts of 2."""
    trainer = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]] * 6)
    log_probs = torch.randn(6, 6, generator=generator) * mask[:, 1:]  # as TRL's models return them
    reference = torch.randn(6, generator=generator)
    outputs = {"log_probs": log_probs, "entropy": log_probs, "mean_logits": log_probs}
    outputs |= {"is_top1": log_probs > 0}
    trl = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=_Totals(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[{"dpo": "sigmoid", "ipo": "ipo"}[name]],
        loss_weights=[1.0],
        beta=0.3,
        use_weighting=False,
        label_smoothing=0.0,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": mask,
        "attention_mask": mask,
        "completion_mask": mask,
        "ref_chosen_logps": reference[:3],
        "ref_rejected_logps": reference[3:],
    }
    expected = trainer._compute_loss(trl, lambda **_: SimpleNamespace(**outputs), inputs, False)
    ours = preference_loss((log_probs.sum(1) - reference).view(2, 3), 5, 0.3, name)  # type: ignore[arg-type]
    assert float(ours.loss.mean()) == pytest.approx(float(expected), rel=1e-6)
    metrics = trl._metrics["train"]
    assert float(ours.chosen.mean()) == pytest.approx(metrics["rewards/chosen"][0], rel=1e-5)
    assert float((ours.chosen - ours.rejected).mean()) == pytest.approx(
        metrics["rewards/margins"][0], rel=1e-5
    )
