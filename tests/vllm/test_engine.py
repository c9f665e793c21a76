"""The engine vllm: its self-check, failures, and runs on the command line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.errors import BadInput, DeviceLost
from sar_eval.families.simplear import find_checkpoint
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.guidance_check import GuidanceCheckFailed
from sar_eval.vllm_guided.pairing import PairSampler
from tests.vllm.engines import codes, demo_engine, demo_requests, native_codes


def test_an_engine_without_guidance_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = PairSampler._sample

    def unguided(self: PairSampler, logits: Any, group: Any, parameters: Any) -> Any:
        off = DrawProtocol("off", 0, guidance=1.0 + 1e-9)
        return sample(self, logits, group, replace(parameters, protocol=off))

    monkeypatch.setattr(PairSampler, "_sample", unguided)
    with pytest.raises(GuidanceCheckFailed, match="nothing was drawn"), demo_engine():
        pass


def test_an_engine_with_other_weights_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(checkpoint: Any, device: str, dtype: str) -> Any:
        del checkpoint
        return load_decoder(find_checkpoint("demo:pretrain"), device, dtype)

    monkeypatch.setattr("sar_eval.decoding.load.load_decoder", other)
    with pytest.raises(GuidanceCheckFailed, match="same weights"), demo_engine():
        pass


def test_half_precision_passes_its_check() -> None:
    with demo_engine(6.0, dtype="bfloat16") as engine:
        assert 0 < engine.deviation.measured < engine.deviation.wrong / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_such_option": 1}, "no_such_option"),
        ({"max_num_seqs": 1}, "max_num_seqs is 1"),
        ({"kv_cache_memory_bytes": 1000}, "cache blocks"),
        ({"max_num_batched_tokens": 8}, "max_num_batched_tokens"),
        ({"quantization": "awq"}, "awq"),
    ],
)
def test_options_that_cannot_work_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises((BadInput, GuidanceCheckFailed), match=message), demo_engine(**options):
        pass


@pytest.mark.parametrize(
    ("platform", "message"), [("cuda", "this vLLM is for cuda"), ("", "there is none")]
)
def test_a_vllm_for_another_device_is_reported(
    monkeypatch: pytest.MonkeyPatch, platform: str, message: str
) -> None:
    import vllm.platforms

    monkeypatch.setattr(vllm.platforms, "_current_platform", SimpleNamespace(device_type=platform))
    with pytest.raises(BadInput, match=message), demo_engine():
        pass


def test_a_request_that_vllm_refuses_fails_its_image_alone() -> None:
    with demo_engine() as engine:
        good, long, invalid = demo_requests(3)
        positions = engine.checkpoint.decoder_config.max_position_embeddings
        long = replace(long, prompts=(long.prompts[0] * positions, long.prompts[1]))
        invalid = replace(invalid, prompts=(invalid.prompts[0], (*invalid.prompts[1], 10**6)))
        outputs = engine.driver.generate([long, invalid, good])
        again = engine.driver.generate([good])
    assert outputs[0].error.startswith("vLLM refused it: VLLMValidationError: ")
    assert outputs[1].error == "token id 1000000 of its prompt is not in the vocabulary"
    assert outputs[2].tokens == again[0].tokens
    assert len(outputs[2].tokens) == 64


@pytest.mark.parametrize("scheduling", [True, False], ids=["asynchronous", "synchronous"])
def test_an_engine_that_failed_once_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, scheduling: bool
) -> None:
    with demo_engine(async_scheduling=scheduling) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(PairSampler, "__call__", lambda *_: 1 / 0)
            with pytest.raises(DeviceLost, match="vLLM failed: ZeroDivisionError"):
                engine.driver.generate(demo_requests(3))
        with pytest.raises(DeviceLost, match="vLLM failed: ZeroDivisionError"):
            engine.driver.generate(demo_requests(1))


def test_two_processes_may_share_the_weights() -> None:
    requests = demo_requests(5)
    with demo_engine(tensor_parallel_size=2) as engine:
        outputs = engine.driver.generate(requests)
        assert codes(engine, outputs) == native_codes(requests)
    assert sum(output.restarts for output in outputs) == 0


def test_scores_that_are_not_finite_fail_their_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    call = PairSampler.__call__

    def with_nan(self: PairSampler, logits: Any, rows: Any) -> None:
        for row in rows:
            if row.branch.seed == 101 and row.num_tokens == 9:
                logits[row.index, 3] = torch.nan
        call(self, logits, rows)

    with demo_engine() as engine:
        monkeypatch.setattr(PairSampler, "__call__", with_nan)
        outputs = engine.driver.generate(demo_requests(3))
    assert [output.failed_at for output in outputs] == [-1, 9, -1]
    assert [len(output.tokens) for output in outputs] == [64, 9, 64]


def test_a_pair_that_never_stays_in_sync_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    call = PairSampler.__call__

    def apart(self: PairSampler, logits: Any, rows: Any) -> None:
        """Sample the rows of seed 101 separately from its fifth token on."""
        alone = [r for r in rows if r.branch.seed == 101 and r.branch.start + r.num_tokens >= 4]
        call(self, logits, [row for row in rows if row not in alone])
        for row in alone:
            call(self, logits, [row])

    with demo_engine() as engine:
        monkeypatch.setattr(PairSampler, "__call__", apart)
        outputs = engine.driver.generate(demo_requests(3))
    assert [len(output.tokens) for output in outputs] == [64, 4, 64]
    assert outputs[1].error == "its two rows were out of sync 3 times at the same token"


def test_a_core_process_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with demo_engine() as engine:
        cores = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
        killer = threading.Timer(0.3, lambda: [core.kill() for core in cores])
        killer.start()
        with pytest.raises(DeviceLost, match="vLLM failed"):
            engine.driver.generate(demo_requests(64))
        killer.join()


def test_the_newer_runner_gives_the_same_tokens() -> None:
    """With real tensors, and stand-ins for its states and its context of a step."""
    import numpy as np

    from sar_eval.vllm_guided.logits_processor import GuidanceLogitsProcessor
    from sar_eval.vllm_guided.pairing import Branch, TokenLayout
    from sar_eval.vllm_guided.plugin import CONFIG_KEY

    layout = TokenLayout(50, 9)
    hf_config = SimpleNamespace(**{CONFIG_KEY: asdict(layout)})
    config = SimpleNamespace(model_config=SimpleNamespace(hf_config=hf_config))
    prompts = np.array([0, 4, 0, 7, 2, 5], np.int32)
    states = SimpleNamespace(device=torch.device("cpu"), prompt_len=SimpleNamespace(np=prompts))
    newer = GuidanceLogitsProcessor(config, states)
    older = GuidanceLogitsProcessor(config, torch.device("cpu"), False)
    branches = {
        1: Branch("a", False, 1, 0, 3.0),
        3: Branch("a", True, 1, 0, 3.0),
        4: Branch("b", False, 2, 5, 1.0),
    }
    for slot, branch in branches.items():
        params = SimpleNamespace(temperature=0.0, extra_args={CONFIG_KEY: branch.to_dict()})
        assert newer.add_request(slot, params)
        older.batch[[5, 0, 0, 2, 3][slot]] = (branch, [0] * 6)
    assert not newer.add_request(5, SimpleNamespace(temperature=0.0, extra_args=None))
    # Rows: slots 1, 5, 3, 4; sequence lengths are prompt and six tokens each.
    order = np.array([1, 5, 3, 4], np.int32)
    context = SimpleNamespace(idx_mapping_np=order, seq_lens_upper_bound_np=prompts[order] + 6)
    logits = torch.randn(4, layout.columns)
    expected = logits.clone()
    newer.apply(logits, context)
    older.batch = {0: (branches[1], [0] * 6), 2: (branches[3], [0] * 6), 3: (branches[4], [0] * 6)}
    older.apply(expected)
    assert torch.equal(logits, expected)
    assert logits[0].argmax() == logits[2].argmax() < 50
    # The slot is now that of another request.
    newer.add_request(1, SimpleNamespace(temperature=0.0, extra_args=None))
    logits = torch.randn(4, layout.columns)
    newer.apply(logits, context)
    assert logits[2].argmax() == layout.out_of_sync_id


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 1.0}, "temperature 0"),
        ({"structured_outputs": {"json": "{}"}}, "structured output"),
        ({"extra_args": {"sar_eval": {"pair_id": 1}}}, "a branch has no pair_id = 1"),
    ],
)
def test_unsupported_requests_are_refused(params: dict[str, Any], message: str) -> None:
    from sar_eval.vllm_guided.logits_processor import GuidanceLogitsProcessor
    from sar_eval.vllm_guided.pairing import Branch

    valid = {"temperature": 0.0, "extra_args": {"sar_eval": Branch("a", False, 1).to_dict()}}
    GuidanceLogitsProcessor.validate_params(SimpleNamespace(**valid))
    with pytest.raises(ValueError, match=message):
        GuidanceLogitsProcessor.validate_params(SimpleNamespace(**valid | params))


Run = Callable[..., subprocess.CompletedProcess[str]]


def _column(folder: Path, kind: str, column: str) -> dict[str, Any]:
    parts = sorted((folder / kind).glob("part-*.parquet"))  # a worker that was killed may leave a .tmp
    rows = pd.concat(map(pd.read_parquet, parts)).set_index("key")[column]
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in rows.items()}


def test_a_run_has_the_tokens_and_verdicts_of_native(sar_eval: Run, suite: Path, tmp_path: Path) -> None:
    words = ("run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "-n", 2, "--workers", 1, "--json")
    summaries = {}
    for engine in ("native", "vllm"):
        done = sar_eval(*words, "--engine", engine, "--out", tmp_path / engine)
        assert done.returncode == 0, done.stderr
        summaries[engine] = json.loads(done.stdout)
    runs = [tmp_path / "native", tmp_path / "vllm"]
    assert _column(runs[0], "generations", "tokens") == _column(runs[1], "generations", "tokens")
    assert _column(runs[0], "verdicts/shapes", "passed") == _column(runs[1], "verdicts/shapes", "passed")
    assert summaries["native"]["metrics"] == summaries["vllm"]["metrics"]
    manifest = json.loads((runs[1] / "run.json").read_text())
    assert manifest["spec"]["engine_version"].startswith("1 (vllm 0.")


def test_a_killed_worker_loses_nothing_stored(suite: Path, tmp_path: Path) -> None:
    """The run continues with another worker; options are in its manifest."""
    words = ["generate", str(suite), "--ckpt", "demo:sft", "-n", "2", "--guidance", "3", "--workers", "1"]
    words += ["--batch-size", "4", "--engine", "vllm", "--engine-option", "max_num_seqs=8"]
    command = [sys.executable, "-m", "sar_eval", *words, "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        parts = tmp_path / "run" / "generations"
        while running.poll() is None and len(list(parts.glob("part-*.parquet"))) < 2:
            time.sleep(0.05)
        stored = {path.name for path in parts.glob("part-*.parquet")}
        for child in psutil.Process(running.pid).children(recursive=True):
            if "multiprocessing.spawn" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
        output, errors = running.communicate(timeout=200)
    assert running.returncode == 0, output + errors
    assert stored <= {path.name for path in parts.glob("part-*.parquet")}
    assert len(_column(tmp_path / "run", "generations", "tokens")) == 24
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["spec"]["engine_options"] == {"max_num_seqs": 8}


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "draw_with_vllm.py"
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-0_0.png", "mine-1_0.png"]
    assert done.stdout.count("64 tokens") == done.stdout.count("with guidance") == 2


def test_the_doctor_reports_the_version(sar_eval: Run) -> None:
    done = sar_eval("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["vllm"]["ok"] is True
    assert findings["vllm"]["detail"].startswith("0.32")
