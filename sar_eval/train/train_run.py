"""Train what a recipe asks for: its names become files, and facts beside the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from msgspec import structs
from transformers import TrainerCallback

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput
from sar_eval.families.locate import locate, locate_visual_tokenizer
from sar_eval.storage.files import write_bytes
from sar_eval.train.checkpoint_writer import ABOUT
from sar_eval.train.curve import TrainingProgress
from sar_eval.train.fit import TrainingJob, fit
from sar_eval.train.journal import Listener
from sar_eval.train.published import published
from sar_eval.train.recipe_file import RECIPE, toml_text
from sar_eval.train.start import Start, find_start
from sar_eval.train.train_recipe import TrainRecipe, public
from sar_eval.train.training_options import Precision
from sar_eval.train.training_watch import Watching
from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class Selected:
    """What of `selection.json`, which `train select` writes, is read here."""

    prompts_of_a_test: int = 0


@dataclass(frozen=True, slots=True)
class DecoderRun:
    """A recipe whose files are found.

    Attributes:
        recipe: what is asked for.
        out: the folder to write.
        visual_tokenizer: folder of the tokenizer that the shards were made with.
        start: what the decoder is at step 0.
    """

    recipe: TrainRecipe
    out: Path
    visual_tokenizer: Path
    start: Start

    @classmethod
    def of(cls, recipe: TrainRecipe, out: Path) -> Self:
        """Find the recipe's files.

        Raises:
            BadInput, UnknownName: they are not there or do not fit.
            Incomplete: a download was interrupted.
        """
        visual, start = _visual_tokenizer(recipe), recipe.start
        found = find_start(
            visual,
            init=start.init,
            shape=start.shape,
            ckpt=start.ckpt,
            text_tokenizer=start.text_tokenizer,
            tie=start.tie,
            seed=recipe.training.seed,
        )
        return cls(recipe, out, visual, found)

    @property
    def facts(self) -> dict[str, Json]:
        """What made the checkpoint, for its `sar_eval.json` and card."""
        recipe, tested = self.recipe, self.test_prompts
        shown = public(recipe.settings())
        return {
            "by": recipe.kind,
            "recipe": recipe.name,
            "recipe_digest": recipe.digest,
            "start": published(dict(self.start.facts)),
            "data": shown["data"]["places"],
            "options": shown["training"],
            "card": {key: value for key, value in shown["card"].items() if value},
            **({"test_prompts": tested} if tested else {}),
        }

    @property
    def test_prompts(self) -> int:
        """Prompts of test suites: those that `train select` chose, or that the start was trained on."""
        folders = [Path(each.place) for each in self.recipe.places if "://" not in str(each.place)]
        paths = [path for folder in folders if (path := folder / "selection.json").is_file()]
        selected = [convert(read_json(path), Selected, str(path)).prompts_of_a_test for path in paths]
        return max(sum(selected), self.start.test_prompts)

    def train(
        self,
        progress: TrainingProgress = lambda step, steps, loss: None,
        listener: Listener = lambda step, figures: None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Train, and write the checkpoint (see `fit`).

        Args:
            progress: is told step, steps and loss.
            listener: is told every point of the curve and every evaluation.
            tell: takes a sentence for the user: what the training costs, and every evaluation.

        Raises:
            BadInput: the data do not fit the tokenizer or the start, or the evaluation cannot be made.
        """
        recipe = self.recipe
        watching = Watching(
            evaluation=recipe.evaluation,
            where=recipe.name,
            settings=public(recipe.settings()),
            notes=[f"Trained on {tested} prompts of a test suite."]
            if (tested := self.test_prompts)
            else (),
            listener=listener,
            tell=tell,
        )
        job = TrainingJob(
            start=self.start,
            data=recipe.places,
            visual_tokenizer=self.visual_tokenizer,
            out=self.out,
            options=recipe.training,
            watching=watching,
            callbacks=[RecipeCallback(recipe, self.out)],
            training=self.facts,
        )
        fit(job, progress)


class RecipeCallback(TrainerCallback):
    """Writes the whole recipe when the training begins: once everything that it names is found to fit."""

    def __init__(self, recipe: TrainRecipe, out: Path) -> None:
        self._recipe, self._out = recipe, out

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Write it, in the first process."""
        if state.is_world_process_zero:
            precision: Precision = "bfloat16" if args.bf16 else "float32"
            recipe = structs.replace(
                self._recipe, training=replace(self._recipe.training, precision=precision)
            )
            head = f"# The whole recipe of this checkpoint; its digest is {recipe.digest}.\n"
            write_bytes(self._out / RECIPE, (head + toml_text(recipe.settings())).encode())


def is_finished(recipe: TrainRecipe, out: Path) -> bool:
    """Whether `out` has this very recipe's checkpoint already.

    Raises:
        BadInput: it has another's.
    """
    if not (out / ABOUT).exists():
        return False
    about = read_json(out / ABOUT)
    training = about.get("training") if isinstance(about, dict) else None
    if not isinstance(training, dict) or training.get("recipe_digest") != recipe.digest:
        raise BadInput(f"{out} is already a finished checkpoint, of another recipe: use another --out")
    return True


def _visual_tokenizer(recipe: TrainRecipe) -> Path:
    """The folder of the tokenizer that is named, else of the checkpoint's."""
    if named := recipe.data.visual_tokenizer:
        return locate_visual_tokenizer(named)
    return locate(recipe.start.ckpt).visual_folder
