"""The loss of a policy gradient: numbers worked out by hand, gradients, and what clipping does."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.rl.losses import (
    Divergence,
    EntropyControl,
    LossOptions,
    divergence,
    importance_weights,
    policy_loss,
)

NAN = math.nan
OLD = torch.tensor([[-1.0, -2.0, -3.0], [-2.0, -1.0, -0.5]], dtype=torch.float64)


def logs(*ratios: list[float]) -> Tensor:
    """Log-probabilities with these ratios to OLD, with gradient."""
    return (OLD + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_()


def options(**kwargs: Any) -> LossOptions:
    return LossOptions(**{"clip_low": 0.2, "clip_high": 0.2, **kwargs})


def same(left: Tensor, right: list[list[float]]) -> bool:
    return bool(torch.allclose(left, torch.tensor(right, dtype=left.dtype), rtol=1e-9, atol=1e-12))


def test_clipping_stops_what_has_gone_far_enough_in_the_good_direction_only() -> None:
    log_probs = logs([0.5, 1.1, 2.0], [0.5, 1.1, 2.0])
    loss, seen = policy_loss(log_probs, OLD, torch.tensor([1.0, -1.0]).double(), options=options())
    assert same(loss, [[-0.5, -1.1, -1.2], [0.8, 1.1, 2.0]])
    assert same(seen["ratio"], [[0.5, 1.1, 2.0]] * 2)
    assert seen["clipped"].tolist() == [[0, 0, 1], [1, 0, 0]]
    loss.sum().backward()
    # d ratio / d log p = ratio, and 0 where clipped.
    assert same(log_probs.grad, [[-0.5, -1.1, 0.0], [0.0, 1.1, 2.0]])


def test_clip_higher_lets_rare_tokens_grow_further() -> None:
    advantages = torch.tensor([1.0, 1.0]).double()
    ratios = logs([1.25, 1.3, 1.2], [1.0, 1.0, 1.0])
    _, seen = policy_loss(ratios, OLD, advantages, options=options(clip_high=0.28))
    assert seen["clipped"].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_cispo_cuts_the_ratio_off_and_keeps_every_token_s_gradient() -> None:
    log_probs = logs([0.5, 1.1, 2.0], [0.5, 1.1, 2.0])
    advantages = torch.tensor([1.0, -2.0]).double()
    loss, seen = policy_loss(log_probs, OLD, advantages, options=options(loss="cispo"))
    loss.sum().backward()
    assert same(log_probs.grad, [[-0.5, -1.1, -1.2], [1.0, 2.2, 2.4]])
    assert seen["clipped"].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_sequence_level_gives_all_tokens_the_geometric_mean_of_the_ratios() -> None:
    log_probs = logs([0.5, 1.0, 4.0], [1.0, 1.0, 1.0])
    mean = 2 ** (1 / 3)
    advantages = torch.tensor([-1.0, 3.0]).double()
    loss, seen = policy_loss(log_probs, OLD, advantages, options=options(level="sequence"))
    assert same(seen["ratio"], [[mean] * 3, [1.0] * 3])
    assert same(loss, [[mean] * 3, [-3.0] * 3])
    loss.sum().backward()
    # Each of three tokens moves the mean's logarithm by a third, and three losses hold it.
    assert same(log_probs.grad, [[mean] * 3, [-3.0] * 3])


@pytest.mark.parametrize("loss", ["clip", "cispo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_first_update_is_the_plain_policy_gradient(loss: str, level: str) -> None:
    log_probs = OLD.clone().requires_grad_()
    advantages = torch.tensor([0.5, -2.0]).double()
    found, seen = policy_loss(
        log_probs, log_probs.detach(), advantages, options=options(loss=loss, level=level)
    )
    found.sum().backward()
    assert same(log_probs.grad, [[-0.5] * 3, [2.0] * 3])
    assert not seen["clipped"].any()


def test_token_weights_and_importance_weights_scale_the_policy_s_part_alone() -> None:
    reference = OLD - 0.3
    weights = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]).double()
    engine = OLD - torch.tensor([[1.0, 1.5, 1.0], [8.0, NAN, 0.5]], dtype=torch.float64).log()
    loss, seen = policy_loss(
        OLD.clone(),
        OLD,
        torch.tensor([1.0, -1.0]).double(),
        options=options(beta=0.5, importance_cap=2.0),
        reference=reference,
        token_weights=weights,
        engine_log_probs=engine,
    )
    kl = math.exp(-0.3) + 0.3 - 1
    assert same(seen["kl"], [[kl] * 3] * 2)
    assert same(loss - 0.5 * kl, [[0.0, -1.5, -2.0], [2.0, 1.0, 0.5]])


def test_importance_weights_are_cut_off_and_1_where_the_engine_says_nothing() -> None:
    trainer = torch.tensor([[-1.0, -1.0, -1.0, -1.0]])
    engine = torch.tensor([[-1.0, -4.0, 0.0, NAN]])
    expected = torch.tensor([[1.0, 3.0, math.exp(-1), 1.0]])
    assert torch.allclose(importance_weights(trainer, engine, 3.0), expected)


def test_what_is_masked_costs_nothing_whatever_it_is() -> None:
    hole = torch.tensor([[0, 0, 1], [0, 0, 0]]).bool()

    def holed(values: Tensor) -> Tensor:
        return values.detach().masked_fill(hole, NAN)

    log_probs = holed(OLD + 0.1).requires_grad_()
    loss, seen = policy_loss(
        log_probs,
        holed(OLD),
        torch.tensor([1.0, -1.0]).double(),
        options=options(level="sequence", beta=1.0),
        reference=holed(OLD),
        token_weights=holed(torch.ones_like(OLD)),
        engine_log_probs=holed(OLD),
        mask=~hole,
    )
    loss.sum().backward()
    assert torch.isfinite(log_probs.grad).all()
    assert not any(value[hole].any() for value in (log_probs.grad, loss, *seen.values()))
    assert same(seen["ratio"][:, :2], [[math.exp(0.1)] * 2] * 2)


def test_a_nan_that_counts_is_not_hidden() -> None:
    log_probs = OLD.clone()
    log_probs[0, 1] = NAN
    loss, _ = policy_loss(log_probs, OLD, torch.ones(2).double(), options=options())
    assert loss.isnan().tolist() == [[False, True, False], [False, False, False]]


def exact(kind: Divergence, p: Tensor, q: Tensor) -> Tensor:
    """The divergence of two distributions by its definition, summed over all tokens."""
    if kind == "k3":
        return (p * (p / q).log()).sum()
    m = (p + q) / 2
    return ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2


@pytest.fixture
def distributions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (
        (3 * torch.randn(12, generator=generator, dtype=torch.float64)).softmax(0),
        (3 * torch.randn(12, generator=generator, dtype=torch.float64)).softmax(0),
    )


@pytest.mark.parametrize("kind", ["k3", "js"])
def test_the_policy_s_mean_of_an_estimator_is_the_divergence(
    kind: Divergence, distributions: tuple[Tensor, Tensor]
) -> None:
    p, q = distributions
    estimates = divergence(p.log(), q.log(), kind)
    assert torch.allclose((p * estimates).sum(), exact(kind, p, q), rtol=1e-12)
    assert (estimates >= -1e-15).all()
    assert float(divergence(p.log(), p.log(), kind).abs().max()) < 1e-15


@pytest.mark.parametrize("kind", ["k3", "js"])
@pytest.mark.parametrize("updates", [0.0, 0.7])
def test_the_mean_gradient_over_old_samples_is_that_of_the_divergence(
    kind: Divergence, updates: float, distributions: tuple[Tensor, Tensor]
) -> None:
    p, q = distributions
    old = (p.log() - updates * q.sqrt()).log_softmax(0)
    logits = p.log().requires_grad_()
    # Every token once, weighed by how often the old policy draws it.
    loss, seen = policy_loss(
        logits.log_softmax(0)[None],
        old[None],
        torch.zeros(1).double(),
        options=options(kl=kind, beta=1.0),
        reference=q.log()[None],
    )
    assert torch.allclose((old.exp() * seen["kl"]).sum(), exact(kind, p, q), rtol=1e-9)
    found = torch.autograd.grad((old.exp() * loss).sum(), logits)[0]
    expected = torch.autograd.grad(exact(kind, logits.softmax(0), q), logits)[0]
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_js_stays_finite_and_exact_for_ratios_of_any_size() -> None:
    for log_ratio in (-80.0, -1e-3, 0.0, 1e-3, 30.0, 80.0):
        found = divergence(torch.zeros(1), torch.tensor([log_ratio]), "js")
        wide = divergence(torch.zeros(1).double(), torch.tensor([log_ratio]).double(), "js")
        assert torch.allclose(found.double(), wide, rtol=1e-5, atol=1e-6), log_ratio


def test_js_of_a_policy_that_left_the_reference_is_half_of_log_2() -> None:
    assert abs(float(divergence(torch.zeros(1), torch.tensor([-60.0]), "js")) - math.log(2) / 2) < 1e-7


def test_off_and_no_reference_are_no_divergence() -> None:
    advantages = torch.ones(2).double()
    plain, _ = policy_loss(OLD, OLD, advantages, options=options(beta=1.0))
    off, seen = policy_loss(OLD, OLD, advantages, options=options(beta=1.0, kl="off"), reference=OLD - 1)
    assert torch.equal(plain, off)
    assert not seen["kl"].any()


def test_diagnostics_carry_no_gradient() -> None:
    log_probs = OLD.clone().requires_grad_()
    loss, seen = policy_loss(log_probs, OLD, torch.ones(2).double(), options=options(), reference=OLD)
    assert loss.requires_grad
    assert sorted(seen) == ["clipped", "kl", "ratio"]
    assert not any(value.requires_grad for value in seen.values())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"loss": "ppo"}, "loss is 'ppo': choose one of clip, cispo"),
        ({"level": "image"}, "level is 'image': choose one of token, sequence"),
        ({"kl": "k1"}, "kl is 'k1': choose one of k3, js, off"),
        ({"clip_low": 1.5}, "clip_low is 1.5: it lies between 0 and 1"),
        ({"clip_high": -0.1}, "clip_high is -0.1: it lies between 0 and inf"),
        ({"beta": NAN}, "beta is nan: it lies between 0 and inf"),
        ({"importance_cap": 0.5}, "importance_cap is 0.5: it lies between 1 and inf"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says.replace(".", r"\.")):
        LossOptions(**wrong)


def test_a_constant_entropy_coefficient_stays() -> None:
    control = EntropyControl(0.01)
    assert control.applied == 0.01
    assert control.after(0.1) == control.after(NAN) == control


def test_entropy_control_moves_towards_its_target_and_acts_on_the_side_that_needs_it() -> None:
    control = EntropyControl(0.02, target=1.0, rate=0.01, low=-0.01, high=0.03)
    seen = []
    for entropy in (0.5, 0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 0.9):
        control = control.after(entropy)
        seen.append((round(control.coefficient, 9), round(control.applied, 9)))
    assert seen == [
        (0.03, 0.03),
        (0.03, 0.03),
        (0.02, 0.0),
        (0.01, 0.0),
        (0.0, 0.0),
        (-0.01, -0.01),
        (-0.01, -0.01),
        (0.0, 0.0),
    ]
    assert control.after(NAN) == control


def test_before_the_first_step_an_adaptive_bonus_is_not_paid() -> None:
    assert EntropyControl(0.5, target=1.0).applied == 0.0
