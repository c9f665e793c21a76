"""Fixtures shared by all tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from sar_eval.spec import RunSpec
from sar_eval.types import DrawProtocol
from tests.browser import skipped_note
from tests.parity_data import FULL, unpacked
from tests.small_suite import write_small_suite
from tests.warm_command import WarmCommand, is_for_a_new_process

ROOT = Path(__file__).parents[1]
# How long a case takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say once, in the last lines, what a missing browser left untested, and how to install one."""
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    if note := skipped_note([str(report.longrepr) for report in skipped]):
        terminalreporter.write_sep("=", note, yellow=True)


@pytest.fixture(scope="session")
def parity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reference data made with the official code: the full folder where it is, else the committed part."""
    return FULL if FULL.is_dir() else unpacked(tmp_path_factory.mktemp("parity"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks of a few kilobytes lose more by threads that wait for each other than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Twelve prompts of the shapes suite, two of each task."""
    return write_small_suite(tmp_path / "small.jsonl")


@pytest.fixture
def spec(suite: Path) -> RunSpec:
    """A spec over the small suite that needs no checkpoint until something is drawn."""
    return RunSpec(
        benchmark="shapes",
        fold="shapes",
        suite=str(suite),
        suite_digest="0" * 16,
        checkpoint="demo:sft",
        checkpoint_digest="0" * 16,
        protocol=DrawProtocol("shapes", 64, guidance=3.0),
        judge="shapes",
        judge_options={"threshold": 0.6, "counting_threshold": 0.6},
        images_per_prompt=2,
        batch_size=8,
    )


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmCommand]:
    """Starts commands in processes that have their imports behind them."""
    with WarmCommand() as warm:
        yield warm


@pytest.fixture
def sar_eval(request: pytest.FixtureRequest) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own."""

    def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        if {"env", "cwd"} >= options.keys() and not is_for_a_new_process(options.get("env")):
            warm: WarmCommand = request.getfixturevalue("warm")
            return warm.completed(words, 240, **options)
        command = [sys.executable, "-m", "sar_eval", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, **options)

    return run


@pytest.fixture
def faulty_disk() -> Callable[..., dict[str, str]]:
    """The environment of processes, and of their workers, whose disk fails in one kind of call.

    The calls are open (for writing), write, fsync, rename, flock, mkdir and unlink; see the module
    tests/faulty_disk/sitecustomize.py.
    """

    def environment(call: str, error: str, path: str = "", after: int = 0) -> dict[str, str]:
        python_path = os.pathsep.join(
            [str(ROOT / "tests" / "faulty_disk"), os.environ.get("PYTHONPATH", "")]
        )
        fault = f"{call}:{error}:{path}:{after}"
        return {**os.environ, "PYTHONPATH": python_path.rstrip(os.pathsep), "SAR_EVAL_TEST_DISK": fault}

    return environment


@pytest.fixture
def sar_eval_here(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process: exit code and all output. A second faster than a new one."""
    from sar_eval.cli import main

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sar-eval", *map(str, words)])
        capfd.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code
        assert isinstance(code, int | None)
        return code or 0, "".join(capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the real shape with random weights, small enough to decode at once."""
    from tests.tiny_simplear import write_simplear

    return write_simplear(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """CLIP of OpenAI's architecture, small, with random weights: `config` (JSON) and `weights`."""
    open_clip = pytest.importorskip("open_clip", reason="needs the extra geneval")
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    shape = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (folder / "tiny-quickgelu.json").write_text(json.dumps(shape))
    open_clip.add_model_config(folder / "tiny-quickgelu.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-quickgelu").state_dict(), folder / "clip.safetensors")
    return {"config": folder / "tiny-quickgelu.json", "weights": folder / "clip.safetensors"}


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted Mask2Former of the official architecture, small, with random weights."""
    transformers = pytest.importorskip("transformers", reason="needs the extra geneval")
    pytest.importorskip("scipy", reason="needs the extra geneval")
    import torch
    from safetensors.torch import save_file

    from sar_eval.networks.mask2former.mmdet_weights import infer_config
    from sar_eval.networks.mask2former.network import UNUSED

    backbone = transformers.SwinConfig(
        embed_dim=24,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 4}
    layers = {
        "encoder_layers": 1,
        "decoder_layers": 3,
        "dim_feedforward": 64,
        "encoder_feedforward_dim": 64,
    }
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, num_queries=20, num_labels=80, **sizes, **layers
    )
    torch.manual_seed(1)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=1.0)  # sure of something, right or wrong
    state = {n: t.contiguous() for n, t in model.state_dict().items() if not n.startswith(UNUSED)}
    path = tmp_path_factory.mktemp("detector") / "tiny.safetensors"
    save_file(state, path, metadata={"config": json.dumps(infer_config(state))})
    return path
