"""CLIPScore: Hessel's, torchmetrics', ImageReward's (as in Infinity), SimpleAR's reward, and it repaired.

All are a cosine of CLIP's picture and text; they differ in network, text, resizing and scale:

- `hessel` (https://github.com/jmhessel/clipscore): ViT-B/32, "A photo depicts " before the prompt,
  2.5 * max(cosine, 0).
- `torchmetrics` (1.9): Hugging Face's ViT-L/14, max(100 * cosine, 0). A prompt of more than 75 tokens loses
  its end token, and the network then reads none of it: all such prompts have the same score for a picture.
  For a set, the mean is taken before the maximum there; `more.cosine` has what that takes.
- `imagereward` (https://github.com/THUDM/ImageReward, `CLIPScore.py`): ViT-L/14, the cosine itself.
- `simplear` (https://github.com/wdrink/SimpleAR, `llava_trainer_grpo.py`): LAION's ViT-H/14, the picture
  squashed to a square without antialiasing, letters of the prompt's end lost with its markers, the cosine
  itself. The trainer reads the decoder's output; here it is the stored picture.
- `vit-h`: the same network and number as open_clip means them, so with its own transform (bicubic, with
  antialiasing) and the whole prompt: what to reward instead of `simplear`. No official code has this form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from sar_eval.errors import BadInput
from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.source import (
    HF_L14,
    LAION_H14,
    OPENAI_B32,
    OPENAI_L14,
    ClipSource,
    Published,
)
from sar_eval.networks.clip.tokenizers import (
    Tokens,
    hf_tokens_without_end,
    open_clip_tokens,
    openai_tokens,
)
from sar_eval.options import check_choice, check_dtype, check_names
from sar_eval.types import Json, Score, ScorerFacts

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture

VERSION = "1"
LABEL = "scorer 'clip'"  # in error messages
HESSEL_PREFIX, HESSEL_WEIGHT = "A photo depicts ", 2.5
START_MARKER, END_MARKER = "<|t2i|>", "<|soi|>"  # of a prompt of SimpleAR's decoder


@dataclass(frozen=True)
class Form:
    """How a variant makes its number.

    Attributes:
        published: the network.
        transform: names in `networks.clip.transforms`, by the value of the variant's own option.
        option: name of that option; "" if there is none.
        tokenize: ids of the prompt, which comes with the option `prefix` before it.
        number: of the cosine.
        prefix: before the prompt by default; None: it cannot be changed.
    """

    published: Published
    transform: Mapping[str, str]
    option: str
    tokenize: Callable[[str], Tokens]
    number: Callable[[float], float]
    prefix: str | None = None

    @property
    def cost(self) -> float:
        """GFLOP of a picture and a prompt of 77 tokens (open_clip, docs/model_profile.csv)."""
        return {OPENAI_B32: 15.0, LAION_H14: 382.0}.get(self.published, 175.0)


def strip_markers(prompt: str) -> str:
    """What SimpleAR's reward reads of a prompt of its decoder.

    `str.strip` takes a set of characters, not a word: every letter of the markers at the ends is lost with
    them, so that "<|t2i|>A photo of dogs<|soi|>" becomes "A photo of dog".
    """
    return prompt.strip(START_MARKER).strip(END_MARKER).strip()


FORMS = {
    "hessel": Form(
        OPENAI_B32,
        {"": "openai"},
        "",
        lambda prompt: openai_tokens(HESSEL_PREFIX + prompt),
        lambda cosine: HESSEL_WEIGHT * max(cosine, 0.0),
    ),
    "torchmetrics": Form(
        HF_L14,
        {"pillow": "hf", "torchvision": "hf-torchvision"},
        "processor",
        hf_tokens_without_end,
        lambda cosine: max(100 * cosine, 0.0),
    ),
    "imagereward": Form(OPENAI_L14, {"": "openai"}, "", openai_tokens, float),
    "simplear": Form(
        LAION_H14,
        {"float32": "simplear-float32", "bfloat16": "simplear-bfloat16"},
        "decoder_dtype",
        lambda prompt: open_clip_tokens(strip_markers(START_MARKER + prompt + END_MARKER)),
        float,
        prefix="A photo of ",
    ),
    "vit-h": Form(LAION_H14, {"": "openai"}, "", open_clip_tokens, float, prefix=""),
}


def _facts(variant: str, unit: str, low: float, high: float) -> ScorerFacts:
    weights = FORMS[variant].published.names[:1]
    cost = FORMS[variant].cost
    return ScorerFacts(unit, low, high, True, "MIT (weights)", weights=weights, cost=cost)


class Clip:
    """Similarity of picture and prompt."""

    variants = MappingProxyType(
        {
            "hessel": _facts("hessel", "2.5 cosine", 0.0, HESSEL_WEIGHT),
            "torchmetrics": _facts("torchmetrics", "100 cosine", 0.0, 100.0),
            "imagereward": _facts("imagereward", "cosine", -1.0, 1.0),
            "simplear": _facts("simplear", "cosine", -1.0, 1.0),
            "vit-h": _facts("vit-h", "cosine", -1.0, 1.0),
        }
    )
    path_options = ("weights", "config")  # the version has digests of both

    def __init__(
        self,
        variant: str = "hessel",
        device: str = "cpu",
        dtype: str = "float32",
        *,
        weights: str = "",
        config: str = "",
        **options: Json,
    ) -> None:
        """Check the options and find the weights, which are loaded on enter.

        Args:
            variant: "hessel", "torchmetrics", "imagereward", "simplear" or "vit-h".
            device: torch device.
            dtype: of the network; use float32 for figures to publish.
            weights: a file or a folder; "" for the fetched one.
            config: architecture, a name in open_clip or a .json file (open_clip's form or Hugging
                Face's); "" for the published one.
            options: of one variant. torchmetrics: `processor`, "pillow" (transformers 4) or "torchvision"
                (transformers 5). simplear: `decoder_dtype`, "float32" or "bfloat16", in which the picture
                is squashed (bfloat16 is the trainer's default). simplear and vit-h: `prefix` of the
                prompt.

        Raises:
            BadInput: an unknown option or variant, or missing weights.
        """
        check_choice("variant", variant, list(self.variants), LABEL)
        check_dtype(dtype, LABEL)
        self.facts, self.variant, self.form = self.variants[variant], variant, FORMS[variant]
        chosen = _own_options(self.form, options, f"{LABEL}, variant {variant!r},")
        self.prefix = chosen.get("prefix", "")
        self.transform = self.form.transform[chosen.get(self.form.option, "")]
        self.held = HeldClip(ClipSource(self.form.published, weights, config, device, dtype))
        words = "".join(f"+{name}={value}" for name, value in chosen.items())
        self.version = f"{VERSION}+{variant}{words}+{self.held.source.version}"

    def __enter__(self) -> Self:
        self.network = self.held.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        del self.network
        self.held.__exit__(*error)

    def prepare(self, picture: Picture) -> None:
        """Resize as the variant does."""
        self.network.prepare(picture, self.transform)

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """The variant's number of each picture and its prompt; `more` has the cosine if that is another."""
        texts = [self.prefix + prompt for prompt in prompts]
        for score in self.network.score_pairs(pictures, texts, self.transform, self.form.tokenize):
            if score.value is None or self.form.number is float:
                yield score
            else:
                yield replace(score, value=self.form.number(score.value), more={"cosine": score.value})


def _own_options(form: Form, options: Mapping[str, Json], owner: str) -> dict[str, str]:
    """The variant's own options with their defaults.

    Raises:
        BadInput: another variant's, or a value that is none.
    """
    defaults = {form.option: next(iter(form.transform))} if form.option else {}
    if form.prefix is not None:
        defaults["prefix"] = form.prefix
    check_names(options, ["weights", "config", *defaults], owner)
    chosen = defaults | dict(options)
    if form.option:
        check_choice(form.option, chosen[form.option], list(form.transform), owner)
    if not isinstance(chosen.get("prefix", ""), str):
        raise BadInput(f"prefix {chosen['prefix']!r} of {owner} must be a text")
    return chosen


SCORER = Clip
