"""Published weights: their addresses, checksums and paths in the cache."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sar_eval.documents import read_bytes
from sar_eval.errors import BadInput


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: path of the file in the cache folder.
        url: where it is published.
        sha256: its checksum, or the beginning of it where no more is published; "" where none is: the
            checksum of the first download is then recorded (see `recorded_sha256`), and every later
            download must have it.
        purpose: one line for messages.
    """

    name: str
    url: str
    sha256: str
    purpose: str


MASK2FORMER = RemoteFile(
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    "https://download.openmmlab.com/mmdetection/v2.0/mask2former/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    "743b7d99",  # OpenMMLab appends the first eight digits to the file name
    "GenEval's object detector (OpenMMLab, Apache-2.0)",
)
CLIP = RemoteFile(
    "ViT-L-14.pt",
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",  # part of OpenAI's address
    "GenEval's colour classifier (OpenAI, MIT)",
)
_MPLUG = "damo/mplug_visual-question-answering_coco_large_en"
_MPLUG_FILES = {
    "pytorch_model.bin": "weights of DPG's judge, mPLUG-large VQA (DAMO Academy)",
    "config.yaml": "its numbers",
    "config_bert.json": "the numbers of its text parts",
    "vocab.txt": "its word pieces",
    "configuration.json": "what modelscope calls it",
}
# No checksum published by modelscope was known; the address has the form of its hub and was not tested.
MPLUG = tuple(
    RemoteFile(
        f"mplug-vqa-large/{name}",
        f"https://www.modelscope.cn/models/{_MPLUG}/resolve/master/{name}",
        "",
        purpose,
    )
    for name, purpose in _MPLUG_FILES.items()
)
DPG_QUESTIONS = RemoteFile(
    "dpg_bench.csv",
    "https://raw.githubusercontent.com/TencentQQGYLab/ELLA/main/dpg_bench/dpg_bench.csv",
    "",  # none is published
    "DPG-Bench's prompts and questions (ELLA, Apache-2.0)",
)
FILES_BY_NAME = {"mask2former": MASK2FORMER, "clip": CLIP, "mplug": MPLUG[0]}
FILES_BY_BENCHMARK = {"geneval": (MASK2FORMER, CLIP), "dpg": MPLUG}  # needed by the benchmark's judge


def cache_folder() -> Path:
    """`SAR_EVAL_CACHE`, or `sar-eval` in the user's cache folder."""
    if own := os.environ.get("SAR_EVAL_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "sar-eval"
    home = home_folder()
    return _folder_without_home() if home is None else home / ".cache" / "sar-eval"


def home_folder() -> Path | None:
    """The user's home; None for a user id that has neither HOME nor an entry in the password file."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@cache
def _folder_without_home() -> Path:
    folder = Path(tempfile.gettempdir()) / f"sar-eval-{os.getuid()}"
    with suppress(OSError):  # whoever writes there says why that is impossible
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():  # the name is known, so others can take it first
            raise BadInput(f"{folder} belongs to another user: set SAR_EVAL_CACHE to a folder of your own")
    sys.stderr.write(
        f"note: this user has no home folder: {folder} is the cache (SAR_EVAL_CACHE names another)\n"
    )
    return folder


def find_weights(name: str) -> Path:
    """Path of the cached file of a name in `FILES_BY_NAME`.

    Raises:
        BadInput: the file is missing; the message says how to get it, with and without a network.
    """
    file = FILES_BY_NAME[name]
    path = cache_folder() / file.name
    if not path.is_file():
        benchmark = next(name for name, files in FILES_BY_BENCHMARK.items() if file in files)
        raise BadInput(
            f"no {path}: `sar-eval fetch {benchmark}` downloads {file.purpose}; without a network, get "
            f"{file.url} elsewhere and put it there"
        )
    return path


def checksum_path(path: Path) -> Path:
    """The file that records the checksum of a cached file's first download, in `sha256sum`'s format."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str:
    """The recorded checksum of a cached file, "" if there is none.

    Raises:
        BadInput: the file that should hold it holds something else.
    """
    record = checksum_path(path)
    if not record.is_file():
        return ""
    found = re.match(rb"[0-9a-f]{64}\b", read_bytes(record, 10_000))
    if found is None:
        raise BadInput(f"{record} holds no SHA-256: remove it and {path}, and run the command again")
    return found[0].decode()
