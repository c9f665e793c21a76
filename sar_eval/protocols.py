"""The seams: interfaces of engines, judges, answerers, scorers and so on. Nothing inherits from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from sar_eval.tracked_runs import TrackedRun
from sar_eval.types import Answer, Draw, Generation, Prompt, Score, ScorerFacts, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sar_eval.images.picture import Picture
    from sar_eval.measures import Measure

# Environment variable of a worker: how many workers share the memory of its device.
WORKERS_PER_DEVICE = "SAR_EVAL_WORKERS_PER_DEVICE"


class Resource(Protocol):
    """A context manager: `__enter__` loads weights onto a device, `__exit__` frees both."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Engine(Resource, Protocol):
    """Draws images.

    Made as `ENGINE(checkpoint, protocol, device=..., dtype=..., batch_size=..., **options)`. The
    constructor checks its options and loads nothing.

    `version` changes whenever the same draw may give another image.

    Optional, used where they are defined:

    - `begin(draws)`: yields one future of generations per wave, and decodes images in a thread
      (`decoding.token_engine`), so that the next block begins meanwhile. A subclass that overrides
      `generate` alone is called by `generate`.
    - `find(checkpoint, options)`, static: the facts (`types.CheckpointFacts`) of a checkpoint that is none
      of `families`, such as a model's name at a server. The constructor gets their name.
    - `gpus(options)`, static: how many GPUs one worker takes.
    - `most_workers`: how many workers are of use, on this machine or a Ray cluster.
    - `speed_options`: names of the options that no image depends on. They may change on a resume.
    """

    version: str

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """One generation for each draw, in any order. A draw's result depends on nothing else."""
        ...


class Judge(Resource, Protocol):
    """Gives each image a verdict.

    Made with `device` ("cpu" or "cuda") and the recipe's judge options as keyword arguments.

    `version` changes whenever the same image may get another verdict.

    Optional: `speed_options`, names of the options that no verdict depends on; `path_options`, names of
    options that are paths of files whose bytes are in the version (`hps.weights` in a table). Neither is
    in the judge's digest. `fold`, of the class: the fold of its verdicts where the recipe's is another
    judge's. `cost`: GFLOP a picture of 1024 pixels a side, roughly: a filter asks the cheapest judge first,
    and those without a cost last.
    """

    version: str

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each item, in any order."""
        ...


class Answerer(Resource, Protocol):
    """Answers questions about images.

    Made with `device` ("cpu" or "cuda") and options as keyword arguments.

    `version` names the network and its weights; it changes whenever the same question about the same
    image may get another answer. `speed_options`, `path_options` and `cost` as of a judge.

    Optional: `ask(images)`, like `answer` with `Asked` in place of texts, for questions that list the
    spellings of their answers: `Answer.listed` has their probabilities, and `yes` says whether the
    likeliest first token is one of those expected. Without it, such questions are refused.
    """

    version: str

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image (RGB uint8 `[H, W, 3]`), in the same order.

        An image's answers depend on nothing but itself and its questions.
        """
        ...


class Scorer(Resource, Protocol):
    """Gives pictures numbers: a reward model, an aesthetic score, CLIP's similarity to the prompt.

    Made as `SCORER(variant=..., device=..., dtype=..., **options)`. The constructor checks its options,
    finds its weights and loads nothing.

    `variants` is a class attribute: every form with its facts, the default first (`{"": facts}` if there is
    one form). `version` changes whenever the same picture may get another number: it names the formula,
    the options that change numbers, and the weights. `speed_options` and `path_options` as of a judge.

    Optional: `prepare(picture)` is called in a thread before `score` and keeps what it makes by
    `picture.once`, so that pictures are resized while the network works on others. The class's
    `preference = "softmax"` says that the softmax of two raw scores of one prompt is how probably each is
    preferred, which `compare` then shows.
    """

    variants: Mapping[str, ScorerFacts]
    variant: str
    facts: ScorerFacts
    version: str

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """One score for each picture, in the same order.

        A picture's score depends on nothing but itself and its prompt. Scorers that share a network (see
        `networks.shared`) keep its output by `picture.once`, so that it is computed once.
        """
        ...


class Benchmark(Protocol):
    """Says what a benchmark's figures are means of; `sar_eval.stats` does the rest.

    `version` changes whenever the same verdicts may give other figures.
    """

    version: str

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> Sequence[Measure]:
        """Measures of the judged draws, `overall` first; `verdicts` is by draw key."""
        ...


class Tracker(Protocol):
    """Shows a scored run in an experiment tracker.

    Made with the words of `--tracker-option` as keyword arguments, before anything is drawn: the
    constructor checks them, and that the tracker's package is installed, and writes nothing. Keys come
    from the environment variables that the package reads; no option takes one.

    Optional, used where it is defined:

    - `follow(training)`: a context manager that takes a `TrackedTraining` and gives a `StepLog`, to show
      the figures of a training step by step. Entering it begins or goes on with a run there, leaving it
      ends that.
    """

    def log(self, run: TrackedRun) -> str:
        """Write figures, settings, pictures and report, and say where they are (an address, a path).

        May raise anything: the run is stored and its score printed before.
        """
        ...


def scores(verdicts: Mapping[str, Verdict]) -> Iterable[tuple[str, float | None]]:
    """Key and score of every verdict, for a fold that needs no evidence.

    The verdicts of a stored run give them without reading anything else.
    """
    stored = getattr(verdicts, "scores", None)
    return ((key, v.score) for key, v in verdicts.items()) if stored is None else stored()
