"""Run folders for tests of what reads them: stored as the stages store them, without any engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sar_eval.spec import RunSpec
from sar_eval.stages.resume import open_blocks
from sar_eval.storage.manifest import Manifest
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row, verdict_row
from sar_eval.types import DrawProtocol, Generation, Prompt, Verdict, suite_digest


def make_spec(prompts: Sequence[Prompt], **changes) -> RunSpec:
    settings = {"benchmark": "shapes", "fold": "shapes", "suite": "suite.jsonl", "checkpoint": "demo:sft"}
    settings |= {"checkpoint_digest": "0", "protocol": DrawProtocol("shapes", 64), "judge": "shapes"}
    return RunSpec(**{**settings, "suite_digest": suite_digest(prompts), **changes})


def begin_run(path: Path, prompts: Sequence[Prompt], **changes) -> tuple[RunSpec, RunFolder]:
    """A run folder with a manifest and prompts, and its spec (changed as asked)."""
    spec, folder = make_spec(prompts, **changes), RunFolder(path)
    stored = folder.write_prompts(prompts)
    folder.write_manifest(Manifest(spec=spec.to_json(), digest=spec.digest, prompts=stored))
    return spec, folder


def store_generations(spec: RunSpec, folder: RunFolder, images: Mapping[str, bytes | None]) -> None:
    """Store every draw of the run: its image, or an error where it has none."""
    for number, draws in enumerate(open_blocks(spec, folder)):
        made = [
            Generation(d.key, d.seed, (1,), image=image, error=None if image else "broken")
            for d in draws
            for image in [images.get(d.key)]
        ]
        rows = [generation_row(d.prompt, g, spec.digest) for d, g in zip(draws, made, strict=True)]
        folder.write_generations(number, rows, spec.digest)


def store_verdicts(spec: RunSpec, folder: RunFolder, scores: Mapping[str, float]) -> None:
    """Store a verdict on every stored draw: its score, or an error where it has none."""
    for number, part in folder.generations.parts().items():
        keys = folder.generations.read(part.path, ["key"]).column("key").to_pylist()
        digests = folder.generations.image_digests(part, len(keys))
        rows = []
        for key, digest in zip(keys, digests, strict=True):
            score = scores.get(key)
            verdict = Verdict(key, spec.judge, "1", score, error=None if score is not None else "?")
            rows.append(verdict_row(verdict, spec.judge_digest, digest))
        folder.write_verdicts(spec.judge, number, rows, spec.judge_digest, part)


def scored_run(
    path: Path, prompts: Sequence[Prompt], scores: Mapping[str, float], images: int = 2, **changes
) -> Path:
    """A finished run of these scores; draws without one have no verdict."""
    spec, folder = begin_run(path, prompts, images_per_prompt=images, **{"batch_size": 4, **changes})
    keys = [f"{p.id}/{i}" for p in prompts for i in range(images)]
    store_generations(spec, folder, {key: key.encode() for key in keys})
    store_verdicts(spec, folder, scores)
    return path
