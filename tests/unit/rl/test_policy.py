"""The trained policy is the one that draws: values, gradients, chunks, modes."""

from dataclasses import replace

import pytest
import torch

from sar_eval.decoding.sampling import process_logits
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.rl import policy as policy_module
from sar_eval.rl.policy import GuidedPolicy, check_protocol
from sar_eval.rl.policy_model import engine_weights, load_policy
from sar_eval.types import DrawProtocol

GUIDED = DrawProtocol("test", 32, guidance=3.0, temperature=0.7)
PLAIN = replace(GUIDED, guidance=1.0)


@pytest.fixture
def checkpoint(tiny_checkpoint):
    return find_checkpoint(str(tiny_checkpoint))


@pytest.fixture
def drawn(checkpoint):
    """Three pictures of 16 codes with prompts of different lengths, and their negative prompts."""
    texts = ("a photo of a red circle", "two stars", "a photo of a star left of a blue ring")
    prompts = [tuple(map(tuple, (checkpoint.prompt_ids(t), checkpoint.prompt_ids("")))) for t in texts]
    codes = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(1))
    return prompts, codes


def _expected(policy: GuidedPolicy, protocol: DrawProtocol, prompts, codes) -> torch.Tensor:
    """Log-probabilities token by token: whole prefixes, whole logits, the sampler's own scores."""
    found = torch.zeros(codes.shape)
    for row, (branches, sampled) in enumerate(zip(prompts, codes, strict=True)):
        for place, code in enumerate(sampled):
            before = (sampled[:place] + policy.visual_ids.start).tolist()
            logits = [policy.model(torch.tensor([[*ids, *before]])).logits[:, -1] for ids in branches]
            visual = torch.cat(logits)[:, policy.visual_ids.start :]
            scores = process_logits(visual if protocol.guidance != 1 else visual[:1], protocol)
            found[row, place] = scores.log_softmax(-1)[0, code]
    return found


@pytest.mark.parametrize(
    "protocol", [GUIDED, PLAIN, replace(GUIDED, top_k=40, top_p=0.95), replace(GUIDED, min_p=0.5)]
)
def test_log_probabilities_are_those_of_the_sampler(checkpoint, drawn, protocol) -> None:
    prompts, codes = drawn
    policy = load_policy(checkpoint, protocol)
    with torch.no_grad():
        found, expected = policy(prompts, codes).log_probs, _expected(policy, protocol, prompts, codes)
    kept = expected.isfinite()  # a random code may be none of those that top-k, top-p or min-p keep
    assert kept.any()
    if protocol.top_k or protocol.min_p:
        assert not kept.all()
        assert found.isfinite().all()
    else:
        assert kept.all()
    assert torch.allclose(found[kept], expected[kept], atol=2e-5)


def test_entropy_is_that_of_the_whole_distribution(checkpoint, drawn) -> None:
    prompts, codes = drawn
    policy = load_policy(checkpoint, GUIDED)
    with torch.no_grad():
        entropy = policy(prompts, codes).entropy
        first = [torch.cat([torch.full((3, 1), code), codes[:, 1:]], 1) for code in range(64)]
        every = torch.stack([policy(prompts, each).log_probs[:, 0] for each in first], -1)
    assert torch.allclose(entropy[:, 0], -(every.exp() * every).sum(-1), atol=1e-4)
    assert torch.allclose(every.exp().sum(-1), torch.ones(3), atol=1e-5)


def _gradients(policy: GuidedPolicy, drawn, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    scores = policy(*drawn)
    (scores.log_probs * weights).sum().backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def test_the_gradient_is_that_of_finite_differences(checkpoint, drawn) -> None:
    policy = load_policy(checkpoint, GUIDED)
    weights = torch.randn(drawn[1].shape, generator=torch.Generator().manual_seed(2))
    gradients = _gradients(policy, drawn, weights)
    direction = {
        name: g / sum(x.norm() ** 2 for x in gradients.values()).sqrt() for name, g in gradients.items()
    }

    def value(step: float) -> float:
        with torch.no_grad():
            for name, p in policy.named_parameters():
                p.add_(direction[name], alpha=step)
            found = (policy(*drawn).log_probs.double() * weights).sum()
            for name, p in policy.named_parameters():
                p.add_(direction[name], alpha=-step)
        return float(found)

    slope = (value(3e-3) - value(-3e-3)) / 6e-3
    expected = sum(float((gradients[name] * direction[name]).sum()) for name in gradients)
    assert slope == pytest.approx(expected, rel=0.01)


def test_the_branches_have_the_weights_s_and_one_minus_s(checkpoint, drawn, monkeypatch) -> None:
    """d log p / d scores is e_a - p: times s / T for the prompted branch, (1 - s) / T for the negative."""
    policy = load_policy(checkpoint, GUIDED)
    hidden: list[torch.Tensor] = []
    plain = GuidedPolicy._hidden

    def kept(self, *arguments):
        hidden.append(plain(self, *arguments))
        hidden[-1].retain_grad()
        return hidden[-1]

    monkeypatch.setattr(GuidedPolicy, "_hidden", kept)
    policy(*drawn).log_probs.sum().backward()
    prompted, negative = hidden
    assert prompted.grad.abs().max() > 0
    assert torch.allclose(negative.grad * 3.0, prompted.grad * (1 - 3.0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("mode", ["guided", "detached"])
def test_chunks_change_nothing(checkpoint, drawn, monkeypatch, mode) -> None:
    policy = load_policy(checkpoint, GUIDED, mode)
    weights = torch.ones(drawn[1].shape)
    whole, gradients = policy(*drawn), _gradients(policy, drawn, weights)
    monkeypatch.setattr(policy_module, "SCORES_PER_CHUNK", 64 * 7)  # 7 places; the last chunk has 6
    chunked = policy(*drawn)
    assert torch.allclose(whole.log_probs, chunked.log_probs, atol=1e-6)
    assert torch.allclose(whole.entropy, chunked.entropy, atol=1e-6)
    for name, gradient in _gradients(policy, drawn, weights).items():
        assert torch.allclose(gradient, gradients[name], atol=1e-4), name


def test_gradient_checkpointing_changes_nothing(checkpoint, drawn) -> None:
    weights = torch.ones(drawn[1].shape)
    plain = _gradients(load_policy(checkpoint, GUIDED), drawn, weights)
    saving = _gradients(load_policy(checkpoint, GUIDED, gradient_checkpointing=True), drawn, weights)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, saving[name], atol=1e-5), name


def test_detached_has_the_same_values_and_another_gradient(checkpoint, drawn) -> None:
    weights = torch.ones(drawn[1].shape)
    exact, detached = load_policy(checkpoint, GUIDED), load_policy(checkpoint, GUIDED, "detached")
    with torch.no_grad():
        assert torch.allclose(exact(*drawn).log_probs, detached(*drawn).log_probs, atol=1e-5)
    one, other = _gradients(exact, drawn, weights), _gradients(detached, drawn, weights)
    assert any(not torch.allclose(one[name], other[name], rtol=0.05) for name in one)
    # Of the prompted branch alone: what conditional log-probabilities weigh by s, under guided chances.
    assert all(g.isfinite().all() for g in other.values())


def test_conditional_and_unguided_read_the_prompted_branch_alone(checkpoint, drawn) -> None:
    prompts, codes = drawn
    conditional = load_policy(checkpoint, GUIDED, "conditional")
    unguided = load_policy(checkpoint, PLAIN, "unguided")
    expected = _expected(unguided, PLAIN, prompts, codes)
    with torch.no_grad():
        assert torch.allclose(conditional(prompts, codes).log_probs, expected, atol=2e-5)
        assert torch.allclose(unguided([p[:1] for p in prompts], codes).log_probs, expected, atol=2e-5)


def test_a_picture_is_the_same_in_any_batch(checkpoint, drawn) -> None:
    prompts, codes = drawn
    policy = load_policy(checkpoint, GUIDED)
    with torch.no_grad():
        together = policy(prompts, codes).log_probs
        alone = torch.cat([policy(prompts[n : n + 1], codes[n : n + 1]).log_probs for n in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "mode", "words"),
    [
        ({"temperature": 0.0}, "guided", "temperature is 0"),
        ({"full_vocab": True}, "guided", "full_vocab"),
        ({}, "unguided", "guidance = 1"),
        ({}, "exact", "guided, detached"),
    ],
)
def test_a_protocol_without_a_gradient_is_refused(changes, mode, words) -> None:
    with pytest.raises(BadInput, match=words):
        check_protocol(replace(GUIDED, **changes), mode)


def test_an_engine_gets_the_checkpoints_names(checkpoint) -> None:
    policy = load_policy(checkpoint, GUIDED)
    names = dict(engine_weights(policy))
    stored = checkpoint.read_weights("cpu", torch.float32)
    assert set(names) == set(stored)
    assert all(torch.equal(names[name], stored[name]) for name in names)
