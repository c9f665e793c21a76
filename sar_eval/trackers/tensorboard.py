"""TensorBoard: event files in tensorboard/PROJECT/NAME, written by torch's SummaryWriter."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.discover import need
from sar_eval.images.files import decode_image
from sar_eval.tracked_runs import StepLog

if TYPE_CHECKING:
    from sar_eval.tracked_runs import TrackedRun, TrackedTraining
    from sar_eval.types import Json


class TensorBoard:
    """Writes event files, with the report beside them."""

    def __init__(self, *, folder: str = "tensorboard") -> None:
        """`folder`: what `tensorboard --logdir` is given.

        Raises:
            MissingExtra: tensorboard is not installed.
        """
        need("tensorboard", extra="tensorboard", what="tracker 'tensorboard'")
        self.folder = Path(folder)

    def log(self, run: TrackedRun) -> str:
        """One point of each figure at the step (0 if none is known), and a text and an image each."""
        from torch.utils.tensorboard import SummaryWriter

        path = self._path(run)
        with SummaryWriter(str(path)) as writer:
            for name, value in run.figures.items():
                writer.add_scalar(name, value, run.step)
            writer.add_text(f"{run.benchmark}/config", _settings(run.config), run.step)
            _add_pictures(writer, run)
        _copy_report(run, path / run.place)
        return self._where(path)

    @contextmanager
    def follow(self, training: TrackedTraining) -> Iterator[StepLog]:
        """A point of each figure at its step; what was written of later steps before is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        path = self._path(training)
        with SummaryWriter(str(path), purge_step=training.step + 1) as writer:
            writer.add_text("train/config", _settings(training.config), training.step)

            def log(step: int, figures: Mapping[str, float]) -> None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)
                writer.flush()

            yield StepLog(self._where(path), log)

    def _path(self, shown: TrackedRun | TrackedTraining) -> Path:
        return self.folder / _as_name(shown.project) / _as_name(shown.name)

    def _where(self, path: Path) -> str:
        return f"{path} (tensorboard --logdir {self.folder})"


def _settings(config: Mapping[str, Json]) -> str:
    return _verbatim(json.dumps(config, indent=2, ensure_ascii=False))


def _add_pictures(writer: Any, run: TrackedRun) -> None:
    for picture in run.pictures:
        tag = f"{run.benchmark}/pictures/{picture.key}"
        writer.add_image(tag, decode_image(picture.image), run.step, dataformats="HWC")
        words = f"{picture.prompt}\n{picture.verdict}: {picture.reason}"
        writer.add_text(tag, _verbatim(words), run.step)


def _copy_report(run: TrackedRun, folder: Path) -> None:
    """Event files hold no files: the report lies beside them."""
    for path in run.report:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, folder / path.name)


def _verbatim(text: str) -> str:
    """Text that TensorBoard, which reads Markdown, shows as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text).strip(".") or "_"


TRACKER = TensorBoard
