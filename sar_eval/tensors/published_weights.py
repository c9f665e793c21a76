"""Published weights: what there is by name, and where it lies in the cache."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from sar_eval.documents import read_bytes
from sar_eval.errors import BadInput
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.remote_file import HubFolder, RemoteFile
from sar_eval.tensors.scorer_files import SCORER_WEIGHTS, Weights

MASK2FORMER = RemoteFile(
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    "https://download.openmmlab.com/mmdetection/v2.0/mask2former/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    "743b7d99",  # OpenMMLab appends the first eight digits to the file name
    "GenEval's object detector (OpenMMLab)",
    licence="Apache-2.0",
)
CLIP = RemoteFile(
    "ViT-L-14.pt",
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",  # part of OpenAI's address
    "GenEval's colour classifier and the network of several scorers (OpenAI)",
    932_000_000,
    licence="MIT",
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
FILES_BY_BENCHMARK = {"geneval": (MASK2FORMER, CLIP), "dpg": MPLUG}  # needed by the benchmark's judge
# By name: one file, or several that lie in one folder.
WEIGHTS: dict[str, Weights] = {
    "mask2former": (MASK2FORMER,),
    "clip": (CLIP,),
    "mplug": MPLUG[:1],
    **SCORER_WEIGHTS,
}
# Which of them `fetch scorers` gets; CLIP is GenEval's, too.
FOR_SCORERS = ("clip", *SCORER_WEIGHTS)


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
    """Path of a cached file of `WEIGHTS`, or of the folder for those with several.

    Raises:
        BadInput: a file is missing; the message says how to get it, with and without a network.
    """
    weights = WEIGHTS[name]
    if isinstance(weights, HubFolder):
        from sar_eval.tensors.hub import find_folder  # which needs the cache's place from here

        return find_folder(weights, _command(name))
    for file in weights:
        if not (path := cache_folder() / file.name).is_file():
            raise BadInput(
                f"no {path}: `{_command(name)}` downloads {file.purpose}; without a network, get "
                f"{file.url} elsewhere and put it there"
            )
    return cache_folder() / (weights[0].name if len(weights) == 1 else weights[0].name.partition("/")[0])


def _command(name: str) -> str:
    """What downloads the weights of that name."""
    if name in FOR_SCORERS:
        return f"sar-eval fetch scorers {name}"
    return f"sar-eval fetch {'dpg' if name == 'mplug' else 'geneval'}"


def which_published(path: Path, sha256: str = "") -> str | None:
    """The name in `WEIGHTS` of the file with the same bytes, None if its checksum is of none.

    Compared are the published checksums, and those noted when other weights were downloaded: so a
    file of v2.0 in the place of v2.1 is told once v2.0 was fetched, too.

    Args:
        path: of a file that is taken for some of these weights.
        sha256: its checksum, where the caller has it already: a file of 2 GB takes seconds.
    """
    sha256 = sha256 or file_digest(path)
    for name, weights in WEIGHTS.items():
        for known in () if isinstance(weights, HubFolder) else map(_known_sha256, weights):
            if known and sha256.startswith(known):
                return name
    return None


def _known_sha256(file: RemoteFile) -> str:
    return file.sha256 or recorded_sha256(cache_folder() / file.name)


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
