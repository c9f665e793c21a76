"""Why a picture has no row."""

from __future__ import annotations

# Faults of the data: `--strict` ends in exit code 3 if there is any.
FAULTS = {
    "unreadable": "damaged, or of a format that is not read",
    "missing": "gone since the source was listed",
    "no_picture": "without a picture",
    "no_caption": "without a caption",
    "does_not_fit": "with sides that are no multiples of the tokenizer's patch",
}
# What was asked to be left out.
FILTERS = {
    "too_small": "smaller than --min-side",
    "caption_length": "without a caption of --caption-length",
    "aspect_ratio": "of a shape that --crop none would distort",
}
REASONS = FAULTS | FILTERS


class Refused(Exception):
    """A picture that gets no row: a reason of `REASONS`, and what is particular to it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
