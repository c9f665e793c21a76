"""What a comparison could have shown, and what it would take to show more (Cohen 1988, ch. 2)."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri, stdtrit

from sar_eval.comparisons import ALPHA, POWER, Difference
from sar_eval.stats.paired import degrees_of_freedom, standard_error, value_of
from sar_eval.stats.pairing import Paired

LARGEST = 10**12  # prompts or images: more are no advice


def detectable(paired: Paired) -> float | None:
    """The smallest true difference that such a comparison finds at the 5 % level with 80 % power.

    None if the scores are not in [0, 1] and do not differ at all, so that their spread is not known.
    """
    error = standard_error(paired)
    return float((_critical(paired) + ndtri(POWER)) * error) if error > 0 else None


def prompts_needed(paired: Paired) -> int | None:
    """Prompts of the same kinds, with as many images, that would find the observed difference.

    The standard error falls with the root of their number. None without a difference.
    """
    smallest, value = detectable(paired), abs(value_of(paired))
    if smallest is None or value < 1e-12:
        return None
    needed = paired.prompts * (smallest / value) ** 2
    return math.ceil(needed) if needed < LARGEST else None


def images_needed(paired: Paired) -> int | None:
    """Images of each of the same prompts that would find the observed difference.

    More images average out the noise of draws, but not that prompts differ in who is better at them:
    where that alone is too much, no number of images would do (None).
    """
    smallest, share, value = detectable(paired), noise_share(paired), abs(value_of(paired))
    if smallest is None or share is None or value < 1e-12:
        return None
    return _images(paired.draws / paired.prompts, share, smallest / value)


def needed_to_show(found: Difference, margin: float, alpha: float = ALPHA) -> tuple[int | None, int | None]:
    """Prompts, or images of each of the same prompts, that would show on which side of a limit it is.

    That is, with which the one-sided bound of the difference would leave out the limit with 80 % power, if
    the true difference is the observed one.

    Args:
        found: the difference of the prompts at hand.
        margin: from the observed difference to the limit, in the measure's unit.
        alpha: error of the one-sided bound.

    Returns:
        prompts with as many images, and images; None where no number would do, or it is not known.
    """
    if found.detectable is None or margin <= 1e-12:
        return None, None
    one_sided = (ndtri(1 - alpha) + ndtri(POWER)) / (ndtri(1 - ALPHA / 2) + ndtri(POWER))
    ratio = one_sided * found.detectable / margin
    prompts = found.prompts * ratio**2
    images = None
    if found.noise_share is not None:
        images = _images(found.draws / found.prompts, found.noise_share, ratio)
    return math.ceil(prompts) if prompts < LARGEST else None, images


def noise_share(paired: Paired) -> float | None:
    """The share of the difference's variance that is noise of draws, which more images would remove.

    None if it is not known, as with one image of each prompt.
    """
    noise, error = _noise_of_draws(paired), standard_error(paired) ** 2
    return min(noise, error) / error if noise is not None and error > 0 else None


def _images(images: float, noise: float, ratio: float) -> int | None:
    """Images of each prompt for a standard error `ratio` times smaller; None if no number would do."""
    room = ratio**-2 - (1 - noise)
    needed = images * noise / room if room > 0 else math.inf
    return math.ceil(needed) if needed < LARGEST else None


def _critical(paired: Paired) -> float:
    return float(stdtrit(degrees_of_freedom(paired), 1 - ALPHA / 2))


def _noise_of_draws(paired: Paired) -> float | None:
    """The part of the difference's variance that more images of each prompt would remove."""
    parts = []
    for task in paired.tasks:
        spare = task.draws - len(task.first)
        if task.within is None or spare <= 0:
            return None
        parts.append(task.within / spare / task.draws)
    return float(np.sum(parts)) / len(parts) ** 2
