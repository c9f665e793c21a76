"""The engine vllm from Python: images of a few prompts, rollouts with log-probabilities, new weights.

.venv-vllm/bin/python docs/examples/draw_with_vllm.py
"""

from pathlib import Path

from sar_eval.engines.vllm import VllmEngine
from sar_eval.types import DrawProtocol, Prompt, make_draw


def main() -> None:
    """Draw images, then sample the same draws as rollouts for a policy-gradient trainer."""
    import torch

    protocol = DrawProtocol("mine", resolution=64, guidance=3.0)
    texts = ["a photo of one red ring", "a photo of two blue stars"]
    draws = [make_draw(Prompt(f"mine-{n}", text), 0, run_seed=0) for n, text in enumerate(texts)]
    # max_num_seqs is an option of vLLM; entering the engine starts vLLM and runs the self-check.
    with VllmEngine("demo:sft", protocol, device="cpu", max_num_seqs=8) as engine:
        for generation in engine.generate(draws):
            assert generation.image is not None, generation.error
            Path(f"{generation.key.replace('/', '_')}.png").write_bytes(generation.image)
            print(generation.key, len(generation.tokens), "tokens")
        for wave in engine.roll(draws):
            for rollout in wave.result():
                guided, conditional = rollout.log_probs.sum(), rollout.conditional.sum()
                print(f"{rollout.draw.key} log p {guided:.2f} with guidance, {conditional:.2f} without")
        # A trainer's weights, by their Hugging Face names; here the checkpoint's own.
        engine.load_weights(engine.checkpoint.read_weights("cpu", torch.float32).items())


if __name__ == "__main__":  # vLLM may start processes, which import this file
    main()
