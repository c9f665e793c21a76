"""TorchScript files are programs: what they may do is checked before anything in them runs."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.errors import BadInput
from sar_eval.families.fsq import DecoderContract, EncoderContract, FsqAutoencoder
from sar_eval.tensors.torchscript import load_torchscript
from tests.scripted_networks import Attention, CosmosDecoder, CosmosEncoder, Wavelets

warnings.filterwarnings("ignore", message=".*torch.jit.*")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
DEMO = Path(__file__).parents[3] / "sar_eval" / "demo" / "tokenizer"


class Harmless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class ReadsAFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file("victim", True, 4, dtype=torch.uint8)


class SavesAFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "victim")
        return x


class Prints(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("{}")
        return x


def _hidden(x: Tensor) -> Tensor:
    if x.numel() > 10**6:
        for _ in range(2):
            x = x + torch.from_file("victim", True, 4, dtype=torch.uint8)
    return x


class CallsAFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _hidden(x)


class ReadsOldMemory(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.resize_([100])


class Seeds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return x


class RestoresItself(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.training = state[1]


class Forks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(_hidden, x))


def _scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module.eval()).save(str(path))
    return path


def _edited(path: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with each member's bytes as `edit` gives them (None leaves it out)."""
    target = path.with_name("edited.jit")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = edit(name, source.read(name))
            if data is not None:
                copy.writestr(name, data)
    return target


def _with_text(path: Path, old: str, new: str) -> Path:
    def edit(name: str, data: bytes) -> bytes:
        return data.replace(old.encode(), new.encode()) if name.endswith(".py") else data

    return _edited(path, edit)


@pytest.mark.parametrize(
    ("module", "operator"),
    [
        (ReadsAFile(), "from_file"),
        (SavesAFile(), "save"),
        (Prints(), "print"),
        (CallsAFunction(), "from_file"),
        (ReadsOldMemory(), "resize_"),
        (Seeds(), "manual_seed"),
        (RestoresItself(), "__[gs]etstate__"),
        (Forks(), "fork|from_file"),
    ],
)
def test_a_program_that_does_more_than_compute_is_refused(
    module: nn.Module, operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("victim").write_bytes(b"keep")
    path = _scripted(module, tmp_path / "decoder.jit")
    with pytest.raises(BadInput, match=rf"decoder\.jit: code/.*\.py uses ({operator}), which"):
        load_torchscript(path)
    assert Path("victim").read_bytes() == b"keep"


EVIL = 'torch.from_file("victim", True, 4, dtype=0)'
ADD = "torch.add(x, CONSTANTS.c0)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x: Tensor)", f"x: Tensor, y: Tensor={EVIL})"),  # a default value runs while the file is loaded
        ("  training : bool", f"  training : bool\n  evil : Final[Tensor] = {EVIL}"),
        ("torch.add(", 'getattr(torch, "save")('),
        ("torch.add(", 'getattr(torch, "sa\\x76e")('),
        ("torch.add(", "torch . from_file("),
        ("torch.add(", "torch.\\\nfrom_file("),
        ("torch.add(", "torch. # c\n from_file("),
        ("torch.add(", "(0.5.save)("),
        ("torch.add(", "ops.rpc.rpc_sync("),
        ("torch.add(", "ops.aten.from_file("),
        ("torch.add(", "(print)("),
        ("return", "x0 = ' \"'.from_file('\" ')\n    return"),
        ("return", 'x0 = """a" .from_file "b"""\n    return'),
        ("return", "x0 = __torch__.torch.classes.dist_rpc.WorkerInfo()\n    return"),
        ("return", "open(x)\n    return"),
        ("return", "\u00e9 = x\n    return"),
    ],
)
def test_no_spelling_of_an_operator_gets_by(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("victim").write_bytes(b"keep")
    path = _with_text(_scripted(Harmless(), tmp_path / "x.jit"), old, new)
    with pytest.raises(
        BadInput, match=r"may not: it may only compute|no program that torch wrote|not allowed"
    ):
        load_torchscript(path)
    assert Path("victim").read_bytes() == b"keep"


def test_objects_of_torchs_own_classes_are_refused(tmp_path: Path) -> None:
    def edit(name: str, data: bytes) -> bytes:
        split = b"c__torch__.torch\nclasses.quantized.LinearPackedParamsBase\n"
        return split + data if name.endswith("/data.pkl") else data

    path = _edited(_scripted(Harmless(), tmp_path / "x.jit"), edit)
    with pytest.raises(BadInput, match=r"data\.pkl uses __torch__\.torch\.classes\.quantized"):
        load_torchscript(path)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Attention(), (torch.zeros(1, 8, 4, 4),)),
        (Wavelets(), (torch.zeros(1, 8, 8, 8),)),
        (CosmosEncoder(), (torch.zeros(1, 3, 1, 32, 32),)),
        (CosmosDecoder(), (torch.zeros(1, 1, 2, 2, dtype=torch.int32),)),
        (EncoderContract(FsqAutoencoder([4, 4], 16)), (torch.zeros(1, 3, 1, 16, 16),)),
        (DecoderContract(FsqAutoencoder([4, 4], 16)), (torch.zeros(1, 1, 2, 2, dtype=torch.int32),)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize("how", ["script", "trace"])
def test_networks_pass_and_compute_the_same(
    module: nn.Module, inputs: tuple[Tensor, ...], how: str, tmp_path: Path
) -> None:
    module.eval()
    made = (
        torch.jit.script(module) if how == "script" else torch.jit.trace(module, inputs, check_trace=False)
    )
    made.save(str(tmp_path / "x.jit"))
    with torch.inference_mode():
        torch.testing.assert_close(load_torchscript(tmp_path / "x.jit")(*inputs), module(*inputs))


@pytest.mark.parametrize("name", ["encoder.jit", "decoder.jit"])
def test_the_demo_passes(name: str) -> None:
    assert isinstance(load_torchscript(DEMO / name), torch.jit.ScriptModule)


def test_torch_nn_functional_passes() -> None:
    """What torch itself scripts with an interpolation, all its branches included, is on the list."""
    from sar_eval.tensors.torchscript_check import check_graphs

    class Resizes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(F.pad(x, [1, 1], "reflect"), scale_factor=2.0, mode="nearest")

    check_graphs(torch.jit.script(Resizes()), Path("x"))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    data = bytearray((DEMO / "decoder.jit").read_bytes())
    with zipfile.ZipFile(DEMO / "decoder.jit") as archive:
        offsets = [info.header_offset + info.compress_size // 2 + 128 for info in archive.infolist()]
    for offset in offsets[::3]:
        damaged = bytearray(data)
        damaged[offset : offset + 64] = bytes(byte ^ 4 for byte in damaged[offset : offset + 64])
        (tmp_path / "x.jit").write_bytes(damaged)
        with pytest.raises(BadInput, match=r"x\.jit.*damaged|x\.jit"):
            load_torchscript(tmp_path / "x.jit")
    (tmp_path / "x.jit").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match="damaged"):
        load_torchscript(tmp_path / "x.jit")


@pytest.mark.parametrize("data", [b"", b"PK", b"version https://git-lfs", b"\x80\x02}q\x00.", b"\0" * 5000])
def test_other_files_are_no_torchscript(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jit").write_bytes(data)
    with pytest.raises(BadInput, match=r"x\.jit is no readable TorchScript file"):
        load_torchscript(tmp_path / "x.jit")


def test_archives_that_swell_or_repeat_a_name_are_refused(tmp_path: Path) -> None:
    path = _scripted(Harmless(), tmp_path / "x.jit")
    bomb = tmp_path / "bomb.jit"
    shutil.copy(path, bomb)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/0", b"\0" * 100_000_000)
    with pytest.raises(BadInput, match="much larger than the file"):
        load_torchscript(bomb)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/version", b"3")
    with pytest.raises(BadInput, match="a name is there twice"):
        load_torchscript(path)


def test_programs_outside_the_checked_folder_are_not_seen(tmp_path: Path) -> None:
    """`model.json` (an older format) and other members do not reach torch."""
    path = _scripted(Harmless(), tmp_path / "x.jit")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/model.json", b"{}")
        archive.writestr("x/code/evil.so", b"\x7fELF")
    assert load_torchscript(path)(torch.zeros(1)).item() == 1
