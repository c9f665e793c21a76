"""VQAScore: the probability that a network answers yes, asked whether the picture shows the prompt.

(Lin et al., arXiv 2404.01291, and its package t2v_metrics; Apache-2.0.) `flant5` is CLIP-FlanT5 as in
t2v_metrics 3.0: the geometric mean of P(Yes) and P(end | Yes). `qwen` is the form of t2v_metrics 3.1 for
Qwen-VL and other chat models of transformers: P("Yes") of the first new token, not divided by anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sar_eval.errors import BadInput
from sar_eval.networks.shared import acquire, release
from sar_eval.options import check_dtype, check_names
from sar_eval.suites.dpg.yes_no import template_digest
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Asked, Score, ScorerFacts

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.images.picture import Picture
    from sar_eval.networks.clip_flant5.network import Question
    from sar_eval.networks.vqa_transformers import VqaNetwork

VERSION = "1"
LABEL = "scorer 'vqascore'"  # in error messages
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PICTURE = "<image>"  # what stands for the picture in the official prompt
FLANT5, QWEN = "flant5", "qwen"
QUESTIONS = {
    FLANT5: 'Does this figure show "{prompt}"? Please answer yes or no.',
    QWEN: 'Does this figure show "{prompt}"? Please answer Yes or No.',
}
QWEN_MODEL = "Qwen/Qwen3-VL-8B-Instruct"
