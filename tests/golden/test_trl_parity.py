"""Advantages and loss against TRL 1.16's own GRPOTrainer, fed with the same tensors."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sar_eval.rl.advantages import group_advantages, mix_rewards
from sar_eval.rl.losses import EntropyControl, LossOptions, importance_weights, policy_loss

# Importing TRL takes seconds, and it does not know vLLM 0.32 yet, where that is installed.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM"),
]
NAN = math.nan
GROUPS, SIZE, TOKENS = 3, 4, 6
B = GROUPS * SIZE


class Rewards:
    """A reward function of TRL that says what it is told."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.values: list[float | None] = []

    def __call__(self, **kwargs: Any) -> list[float | None]:
        return self.values


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A GRPOTrainer of a network too small to matter: tests hand it all log-probabilities."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    words = WordLevel({"<pad>": 0, "a": 1, "b": 2}, unk_token="a")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<pad>"
    )
    config = Qwen2Config(
        vocab_size=4,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # says at every use that rollout_func is experimental
    built = GRPOTrainer(
        model=Qwen2ForCausalLM(config),
        reward_funcs=[Rewards("first"), Rewards("second")],
        args=GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            per_device_train_batch_size=B,
            num_generations=SIZE,
            max_completion_length=TOKENS,
            vllm_importance_sampling_mode="token_truncate",
            vllm_importance_sampling_clip_max=2.0,
            report_to="none",
            bf16=False,
            use_cpu=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * GROUPS}),
        processing_class=tokenizer,
        rollout_func=lambda prompts, trainer: {
            "prompt_ids": [[1]] * B,
            "completion_ids": [[2] * TOKENS] * B,
            "logprobs": trainer.engine_log_probs,
        },
    )
    patch.undo()
    built.current_gradient_accumulation_steps = 1  # set by `train`
    built._last_loaded_step = 0  # with an engine: its weights are those of step 0
    built.engine_log_probs = [[-1.0] * TOKENS] * B
    return built


Setting = Callable[..., Any]


@pytest.fixture
def trl(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """The trainer with these attributes, for one test."""

    def set_up(**attributes: Any) -> Any:
        for name, value in attributes.items():
            monkeypatch.setattr(trainer, name, value)
        return trainer

    return set_up


# Advantages ---------------------------------------------------------------------------------------------

PLAIN = [[0.0, 1.0, 1.0, 0.25], [3.0, 3.0, 3.0, 3.0], [0.1, 0.100001, 0.1, 0.4]]
HOLES = [[0.0, NAN, 1.0, 0.25], [NAN, NAN, NAN, NAN], [NAN, NAN, 0.7, NAN]]
OTHER = [[20.0, 21.5, 19.0, 20.0], [20.0, 22.0, 22.0, 23.0], [18.0, 18.0, 18.0, 21.0]]


def theirs(trainer: Any, *rewards: list[list[float]]) -> Tensor:
    """TRL's advantages `[P, G]`, out of its own rollout and reward stage."""
    for function, table in zip(trainer.reward_funcs, rewards, strict=True):
        function.values = [None if math.isnan(value) else value for row in table for value in row]
    output = trainer._generate_and_score_completions([{"prompt": "a"}] * B)
    return output["advantages"].view(GROUPS, SIZE)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("rewards", [PLAIN, HOLES])
def test_advantages_of_one_reward(trl: Setting, scale: Any, rewards: list[list[float]]) -> None:
    trainer = trl(scale_rewards=scale, reward_weights=torch.tensor([1.0, 0.0]))
    # TRL adds a missing reward as 0 unless all are missing, so its second one has the same holes.
    found = theirs(trainer, rewards, rewards)
    assert torch.allclose(group_advantages(torch.tensor(rewards), scale), found, rtol=1e-5, atol=1e-6)
    assert found.any()


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_rewards_added_then_normalised(trl: Setting, scale: Any) -> None:
    trainer = trl(scale_rewards=scale, reward_weights=torch.tensor([2.0, 0.1]))
    scores = torch.tensor([PLAIN, OTHER])
    ours = group_advantages(mix_rewards(scores, [2.0, 0.1], [False, False], [0, 0]), scale)
    assert torch.allclose(ours, theirs(trainer, PLAIN, OTHER), rtol=1e-4, atol=1e-5)


def test_rewards_normalised_then_added(trl: Setting) -> None:
    trainer = trl(multi_objective_aggregation="normalize_then_sum", reward_weights=torch.tensor([1.0, 0.5]))
    scores = torch.tensor([PLAIN, OTHER])
    ours = group_advantages(mix_rewards(scores, [1.0, 0.5], [True, True], [0, 0]), "batch")
    assert torch.allclose(ours, theirs(trainer, PLAIN, OTHER), rtol=1e-4, atol=1e-5)


def test_pictures_without_any_reward_normalised_then_added(trl: Setting) -> None:
    trainer = trl(multi_objective_aggregation="normalize_then_sum", reward_weights=torch.tensor([1.0, 0.5]))
    holes = [[NAN, 1.0, 0.5, 0.0], [NAN, NAN, 2.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    others = [[NAN, 3.0, 3.0, 1.0], [NAN, NAN, 5.0, 9.0], [0.0, 2.0, 1.0, 0.0]]
    scores = torch.tensor([holes, others])
    ours = group_advantages(mix_rewards(scores, [1.0, 0.5], [True, True], [0, 0]), "batch")
    assert torch.allclose(ours, theirs(trainer, holes, others), rtol=1e-4, atol=1e-5)


# Loss ---------------------------------------------------------------------------------------------------


class Case:
    """Tensors of one batch, and TRL's loss of them."""

    def __init__(self, trainer: Any) -> None:
        generator = torch.Generator().manual_seed(17)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.trainer = trainer
        self.old = -noise(B, TOKENS).abs() - 0.1
        self.log_probs = (self.old + 0.4 * noise(B, TOKENS)).requires_grad_()
        self.reference = self.old + 0.5 * noise(B, TOKENS)
        self.engine = self.old + 0.8 * noise(B, TOKENS)
        self.advantages = noise(B)
        self.entropies = noise(B, TOKENS).abs()

    def theirs(self, mask: Tensor | None = None, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """TRL's reduced loss and its gradient."""
        mask = torch.ones(B, TOKENS, dtype=torch.long) if mask is None else mask.long()
        self.trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
            self.log_probs,
            self.entropies,
            None,
        )
        batch = {
            "prompt_ids": torch.ones(B, 1, dtype=torch.long),
            "prompt_mask": torch.ones(B, 1, dtype=torch.long),
            "completion_ids": torch.full((B, TOKENS), 2),
            "completion_mask": mask,
            "advantages": self.advantages,
            "old_per_token_logps": self.old,
            "ref_per_token_logps": self.reference,
            "num_items_in_batch": mask.sum(),
        }
        try:
            return self._with_gradient(self.trainer._compute_loss(self.trainer.model, batch | inputs))
        finally:
            del self.trainer._get_per_token_logps_and_entropies  # the class's comes back

    def ours(self, options: LossOptions, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Our loss of a token, summed and divided as the loop does it, and its gradient."""
        loss, self.seen = policy_loss(self.log_probs, self.old, self.advantages, options=options, **inputs)
        mask = inputs.get("mask")
        return self._with_gradient(loss.sum() / (loss.numel() if mask is None else mask.sum()))

    def _with_gradient(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        return loss, torch.autograd.grad(loss, self.log_probs)[0]

    def metric(self, name: str) -> float:
        return float(self.trainer._metrics["train"][name][-1])


def equal(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> bool:
    return all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-7) and bool(b.any())
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("high", [0.2, 0.28])
def test_where_all_pictures_are_as_long_four_losses_are_one(
    trl: Setting, loss_type: str, high: float
) -> None:
    case = Case(trl(loss_type=loss_type, epsilon_low=0.2, epsilon_high=high))
    assert equal(case.ours(LossOptions(clip_low=0.2, clip_high=high)), case.theirs())
    share = float(case.seen["clipped"].mean())
    assert 0 < share < 1
    assert share == pytest.approx(case.metric("clip_ratio/region_mean"))


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_masked_tokens(trl: Setting, loss_type: str) -> None:
    case = Case(trl(loss_type=loss_type, epsilon_low=0.2, epsilon_high=0.28, beta=0.1))
    mask = torch.arange(TOKENS) < (torch.arange(B) % TOKENS + 1)[:, None]
    ours = case.ours(LossOptions(beta=0.1), mask=mask, reference=case.reference)
    assert equal(ours, case.theirs(mask=mask))


def test_cispo(trl: Setting) -> None:
    case = Case(trl(loss_type="cispo", epsilon_high=1.28))
    assert equal(case.ours(LossOptions("cispo", clip_high=0.28)), case.theirs())
    assert float(case.seen["clipped"].mean()) == pytest.approx(case.metric("cispo_clip_ratio"))


@pytest.mark.parametrize(("loss", "loss_type", "high"), [("clip", "grpo", 0.1), ("cispo", "cispo", 1.1)])
def test_sequence_level(trl: Setting, loss: Any, loss_type: str, high: float) -> None:
    case = Case(
        trl(
            loss_type=loss_type,
            importance_sampling_level="sequence",
            epsilon_low=0.1,
            epsilon_high=high,
        )
    )
    assert equal(case.ours(LossOptions(loss, "sequence", clip_low=0.1, clip_high=0.1)), case.theirs())
    assert 0 < float(case.seen["clipped"].mean()) < 1


@pytest.mark.parametrize(("loss", "loss_type"), [("clip", "grpo"), ("cispo", "cispo")])
def test_k3_with_beta(trl: Setting, loss: Any, loss_type: str) -> None:
    high = 0.28 if loss == "clip" else 1.28
    case = Case(trl(loss_type=loss_type, beta=0.04, epsilon_low=0.2, epsilon_high=high))
    assert equal(case.ours(LossOptions(loss, beta=0.04), reference=case.reference), case.theirs())
    assert float(case.seen["kl"].mean()) == pytest.approx(case.metric("kl"))


def test_truncated_importance_weights_of_tokens(trl: Setting) -> None:
    case = Case(trl(loss_type="dapo", epsilon_low=0.2, epsilon_high=0.28, beta=0.04, use_vllm=True))
    case.engine[2, 3] = NAN
    weights = trl_weights(trl, case)
    assert float(weights.max()) == 2.0
    assert torch.allclose(importance_weights(case.old, case.engine, 2.0), weights)
    ours = case.ours(
        LossOptions(beta=0.04, importance_cap=2.0),
        reference=case.reference,
        engine_log_probs=case.engine,
    )
    assert equal(ours, case.theirs(importance_sampling_ratio=weights))


def trl_weights(trl: Setting, case: Case) -> Tensor:
    """The weights that TRL computes when it takes the rollouts of an engine of its kind."""
    trainer = trl(
        engine_log_probs=[
            [None if math.isnan(value) else value for value in row] for row in case.engine.tolist()
        ],
        beta=0.0,  # it would ask a reference network
    )
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (case.old, None, None)
    for function in trainer.reward_funcs:
        function.values = [0.0] * B
    output = trainer._generate_and_score_completions([{"prompt": "a"}] * B)
    trl(beta=0.04)
    return output["importance_sampling_ratio"]


def test_the_adaptive_entropy_coefficient(trl: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trl(
        loss_type="grpo",
        epsilon_low=0.2,
        epsilon_high=0.28,
        use_adaptive_entropy=True,
        _entropy_bonus_enabled=True,
        entropy_coef=0.01,
        _last_world_entropy=math.inf,
    )
    for name, value in (("delta", 0.01), ("min", 0.0), ("max", 0.03)):
        monkeypatch.setattr(trainer.args, f"entropy_coef_{name}", value)
    monkeypatch.setattr(trainer.args, "entropy_target", 1.0)
    case = Case(trainer)
    plain = case.ours(LossOptions())[0]
    control = EntropyControl(0.01, target=1.0, rate=0.01, low=0.0, high=0.03)
    for entropy in (0.5, 0.5, 0.5, 2.0, 2.0, 0.9, 0.9):
        case.entropies = torch.full((B, TOKENS), entropy)
        theirs = case.theirs()[0]
        assert theirs.item() == pytest.approx(plain.item() - control.applied * entropy, abs=1e-6)
        control = control.after(entropy)
        assert control.coefficient == pytest.approx(trainer.entropy_coef)
