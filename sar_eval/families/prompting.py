"""The texts of a draw: prefix, prompt and negative prompt, combined as the protocol says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol, Json

# Prepended to prompt and negative prompt by SimpleAR's training and benchmark scripts, one at random each
# time (`PROMPTS_GEN` in simpar/train/preprocess.py). "a photo of" lacks its space there as well.
SIMPLEAR_PREFIXES = (
    "",
    "a photo of",
    "A detailed digital painting of ",
    "A highly realistic image of ",
    "An abstract representation of ",
    "A fantasy illustration featuring ",
    "A photorealistic depiction of ",
    "A vibrant, colorful scene of ",
    "A surreal dreamscape of ",
    "A futuristic cityscape with ",
    "An epic landscape showcasing ",
    "A minimalistic black and white sketch of ",
    "A cinematic view of ",
    "An ethereal depiction of ",
    "A hyper-realistic portrayal of ",
    "An imaginative interpretation of ",
    "A whimsical illustration of ",
    "A magical world featuring ",
    "An iconic scene from ",
    "A steampunk-inspired version of ",
    "A vintage-style artwork of ",
    "A high-tech sci-fi scene with ",
)
PREFIX_SETS = {"simplear": SIMPLEAR_PREFIXES}

# Copied by hand from the reference (generate.py and simpar/train/t2i_data.py of SimpleAR).
PRESETS: Mapping[str, Mapping[str, Json]] = {
    # The texts of its demo.
    "simplear": {
        "prefix": "A highly realistic image of ",
        "negative_prompt": "An image of aerial view, overexposed, low quality, deformation, a poor "
        "composition, bad hands, bad teeth, bad eyes, bad limbs, distortion",
        "guidance": 6.0,
    },
    # Those of its benchmark script, whose random prefixes come from each draw's seed here.
    "simplear-paper": {
        "prefixes": "simplear",
        "negative_prompt": "Aerial view, aerial view, overexposed, low quality, deformation, a poor "
        "composition, bad hands, bad teeth, bad eyes, bad limbs, distortion",
        "guidance": 6.0,
    },
}


def prompt_texts(protocol: DrawProtocol, draw: Draw) -> tuple[str, str]:
    """The texts of a draw's prompted and negative branch.

    With a set of prefixes each branch gets one of them, chosen by the draw's seed: the same for any
    batch, worker or resume.
    """
    prefix, negative_prefix = protocol.prefix, ""
    if protocol.prefixes:
        choices = PREFIX_SETS[protocol.prefixes]
        noise = hashlib.blake2b(f"prefixes\0{draw.seed}".encode(), digest_size=16).digest()
        numbers = int.from_bytes(noise[:8], "big"), int.from_bytes(noise[8:], "big")
        prefix, negative_prefix = (choices[number % len(choices)] for number in numbers)
    return prefix + draw.prompt.text, negative_prefix + protocol.negative_prompt


def refuse_fields(protocol: DrawProtocol, family: str, reasons: Mapping[str, str]) -> None:
    """Raise for a protocol with a value in a field that a family draws without.

    Args:
        protocol: how to draw.
        family: for the message.
        reasons: why it has no use for a field, by the field's name.

    Raises:
        BadInput: naming the field.
    """
    for name, reason in reasons.items():
        if value := getattr(protocol, name):
            raise BadInput(
                f"{name} is {value!r} in the protocol, and checkpoints of {family} are drawn without: "
                f"{reason}"
            )
