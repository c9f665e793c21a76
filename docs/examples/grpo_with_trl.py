"""GRPO by TRL's own trainer: our engine draws, our policy scores, one of our judges gives the reward.

python docs/examples/grpo_with_trl.py runs/with-trl 30     # needs: pip install 'sar-eval[train,trl]'

The result is a checkpoint for `sar-eval run`. Two of TRL's hooks are not public: use trl 1.16.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from sar_eval import discover
from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.recipe import shipped
from sar_eval.rl.policy import GuidedPolicy
from sar_eval.rl.policy_model import engine_weights, load_policy
from sar_eval.suites.prompts import load_suite
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw

PROTOCOL = DrawProtocol("rollouts", resolution=64, guidance=2.0, temperature=0.5)
PROMPTS, PICTURES = 8, 8  # a step, and of each prompt
BETA = 0.01  # of the KL to the start


class PictureTrainer(GRPOTrainer):
    """TRL's trainer of a guided policy."""

    def __init__(self, engine: TokenEngine, judge: Any, prompts: Sequence[Prompt], **kwargs: Any) -> None:
        self.engine, self.judge, self.first_code = engine, judge, engine.checkpoint.visual_ids.start
        self.prompts = {prompt.text: prompt for prompt in prompts}  # TRL passes on a prompt's text alone
        self.branches: dict[tuple[int, ...], tuple[tuple[int, ...], ...]] = {}
        super().__init__(
            model=load_policy(engine.checkpoint, PROTOCOL).model,
            processing_class=PreTrainedTokenizerFast.from_pretrained(engine.checkpoint.folder),
            train_dataset=Dataset.from_list([{"prompt": text} for text in self.prompts]),
            rollout_func=self.draw,
            reward_funcs=reward,
            **kwargs,
        )
        # TRL itself would load a reference by the architecture's name, which transformers does not know.
        self.ref_model = load_policy(engine.checkpoint, PROTOCOL, device=str(self.model.device)).model
        self.beta = BETA
        # In place of TRL's head, which knows one branch; as `forward`, so that DDP sees the pass.
        for network in (self.model, self.ref_model):
            network.forward = self.policy(network).forward
        # As if TRL had started vLLM: it calls `sync_weights` before it draws, and weighs tokens by
        # exp(trainer - engine).
        self.use_vllm, self.vllm_generation, self._last_loaded_step = True, self, -1

    def policy(self, network: PreTrainedModel) -> GuidedPolicy:
        """The distribution that the network's pictures are sampled from."""
        return GuidedPolicy(network, self.engine.checkpoint.visual_ids, PROTOCOL)

    def sync_weights(self) -> None:
        """Copy the trained weights into the engine."""
        self.engine.load_weights(engine_weights(self.policy(self.model)))

    def draw(self, texts: list[str], _: GRPOTrainer) -> dict[str, list[Any]]:
        """Draw and judge a picture for each text; TRL repeats a text as often as its group is large."""
        first = self.accelerator.process_index * len(texts)
        draws = [
            make_draw(self.prompts[text], first + n, run_seed=self.state.global_step)
            for n, text in enumerate(texts)
        ]
        rollouts = [rollout for wave in self.engine.roll(draws) for rollout in wave.result()]
        pictures = [rollout.generation for rollout in rollouts]
        if failed := [picture for picture in pictures if picture.error]:
            raise RuntimeError(f"{failed[0].key}: {failed[0].error}")
        items = [(rollout.draw.prompt, rollout.generation) for rollout in rollouts]
        verdicts = {verdict.key: verdict for verdict in self.judge.judge(items)}
        self.branches = {rollout.prompts[0]: rollout.prompts for rollout in rollouts}
        return {
            "prompt_ids": [list(rollout.prompts[0]) for rollout in rollouts],
            "completion_ids": [[self.first_code + code for code in picture.tokens] for picture in pictures],
            "logprobs": [rollout.log_probs.tolist() for rollout in rollouts],
            "scores": [verdicts[picture.key].score for picture in pictures],
        }

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """Score pictures through both branches, the negative one as it was drawn with."""
        texts, codes = input_ids[:, :-logits_to_keep], input_ids[:, -logits_to_keep:] - self.first_code
        is_text = attention_mask[:, :-logits_to_keep].bool()
        prompts = [self.branches[tuple(row[own].tolist())] for row, own in zip(texts, is_text, strict=True)]
        size = batch_size or len(prompts)
        parts = [
            model(prompts[start : start + size], codes[start : start + size], compute_entropy)
            for start in range(0, len(prompts), size)
        ]
        log_probs, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return log_probs, entropies, None


def reward(scores: list[float | None], **_: Any) -> list[float | None]:
    """What the judge said; None is no reward and moves no advantage."""
    return scores


def main(out: Path, steps: int) -> None:
    """Train demo:pretrain on prompts of its world, and save the result."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it knows that rollout_func is experimental
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = discover.load("engines", "native")("demo:pretrain", PROTOCOL, device=device)
    config = GRPOConfig(
        output_dir=str(out / "trl"),
        max_steps=steps,
        per_device_train_batch_size=PROMPTS * PICTURES,
        num_generations=PICTURES,
        max_completion_length=engine.image_tokens,  # each picture has so many: none is cut off
        learning_rate=2e-4,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        vllm_importance_sampling_mode="token_truncate",  # whole pictures would be dropped
        vllm_importance_sampling_clip_max=2.0,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
    )
    prompts = load_suite(shipped("prompts") / "shapes-train.jsonl").prompts
    with engine, discover.load("judges", "shapes-soft")() as judge:
        trainer = PictureTrainer(engine, judge, prompts, args=config)
        trainer.train()
    tokenizer, visual_tokenizer = trainer.processing_class, engine.checkpoint.visual_folder
    sizes = {engine.grid}
    save_checkpoint(trainer.model, tokenizer, visual_tokenizer, sizes, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
