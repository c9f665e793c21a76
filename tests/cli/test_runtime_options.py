"""`--runtime` and what goes with it: refused before anything is drawn."""

import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import Run, refused

from sar_eval.errors import BadInput
from sar_eval.runtime.ray_actor import Driver
from sar_eval.runtime.ray_cluster import connect


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--runtime", "kubernetes"), "--runtime is 'kubernetes': local or ray"),
        (("--ray-address", "head:6379"), "--ray-address is for --runtime ray"),
        (("--runtime", "ray", "--devices", "0,1"), "--devices is '0,1': Ray chooses the GPUs"),
    ],
)
def test_what_does_not_go_together(
    in_this_process: Run, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    (tmp_path / "prompts.txt").write_text("a red ring\n")
    out = tmp_path / "out"
    run = ("generate", str(tmp_path / "prompts.txt"), "--ckpt", "demo:sft", "--out", str(out))
    refused(in_this_process([*run, *words]), why)
    assert not out.exists()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.slow  # imports Ray
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:70000", "http://127.0.0.1:8265"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"give HOST:PORT, .*ray job submit"):
        connect(address)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    address = f"127.0.0.1:{_free_port()}"
    with pytest.raises(BadInput, match=f"no Ray cluster answers at {address}: Connection refused"):
        connect(address)


def test_a_machine_with_another_version_is_refused() -> None:
    with pytest.raises(BadInput, match=r"sar-eval is .* here, and 0\.0\.1 on head"):
        Driver("0.0.1", "head", "/", ()).adopt()
