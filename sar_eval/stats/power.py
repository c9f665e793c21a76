"""What a comparison could have shown, and what it would take to show more (Cohen 1988, ch. 2)."""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit

from sar_eval.comparisons import ALPHA, POWER, Difference
from sar_eval.stats.paired import degrees_of_freedom, standard_error, value_of
from sar_eval.stats.pairing import Paired
from sar_eval.stats.totals import relative

FEWEST = 8  # prompts: p of five that all agree is 1/16, and of hardly more it is too coarse for this
LARGEST = 10**12  # prompts or images: more are no advice


def detectable(paired: Paired) -> float | None:
    """The smallest true difference that such a comparison finds at the 5 % level with 80 % power.

    That is, if p needs no adjustment. None if prompts are too few to find any, or if the scores have no
    bounds and do not differ at all, so that their spread is not known.
    """
    error = standard_error(paired)
    smallest = float((_critical(paired) + ndtri(POWER)) * error)
    if paired.prompts < FEWEST or smallest == 0 or (paired.span is not None and smallest > paired.span):
        return None
    return smallest


def prompts_needed(paired: Paired) -> int | None:
    """Prompts of the same kinds, with as many images, that would find the observed difference.

    The standard error falls with the root of their number. None without a difference, or if `detectable`
    is.
    """
    smallest, value = detectable(paired), abs(value_of(paired))
    if smallest is None or value == 0:
        return None
    return _prompts(paired.prompts, smallest / value)


def images_needed(paired: Paired) -> int | None:
    """Images of each of the same prompts that would find the observed difference.

    More images average out the noise of draws, but not that prompts differ in who is better at them:
    where that alone is too much, no number of images would do (None).
    """
    smallest, share, value = detectable(paired), noise_share(paired), abs(value_of(paired))
    if smallest is None or share is None or value == 0:
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
    if found.detectable is None or margin <= 0:
        return None, None
    one_sided = (ndtri(1 - alpha) + ndtri(POWER)) / (ndtri(1 - ALPHA / 2) + ndtri(POWER))
    ratio = one_sided * found.detectable / margin
    images = None
    if found.noise_share is not None:
        images = _images(found.draws / found.prompts, found.noise_share, ratio)
    return _prompts(found.prompts, ratio), images


def noise_share(paired: Paired) -> float | None:
    """The share of the difference's variance that is noise of draws, which more images would remove.

    None if it is not known, as with one image of each prompt.
    """
    noise, error = _noise_of_draws(paired), standard_error(paired) ** 2
    return min(noise, error) / error if noise is not None and error > 0 else None


def _prompts(prompts: int, ratio: float) -> int | None:
    """Prompts for a standard error `ratio` times smaller; None if they are no advice."""
    needed = prompts * min(ratio, LARGEST) ** 2
    return max(FEWEST, math.ceil(needed)) if needed < LARGEST else None


def _images(images: float, noise: float, ratio: float) -> int | None:
    """Images of each prompt for a standard error `ratio` times smaller; None if no number would do."""
    room = max(ratio, 1 / LARGEST) ** -2 - (1 - noise)
    needed = images * noise / room if room > 0 else math.inf
    return max(1, math.ceil(needed)) if needed < LARGEST else None


def _critical(paired: Paired) -> float:
    return float(stdtrit(degrees_of_freedom(paired), 1 - ALPHA / 2))


def _noise_of_draws(paired: Paired) -> float | None:
    """The part of the difference's variance that more images of each prompt would remove."""
    weights = relative([task.share for task in paired.tasks])
    noises = [(weight, task.noise) for weight, task in zip(weights, paired.tasks, strict=True)]
    parts = [weight**2 * noise for weight, noise in noises if noise is not None]
    return sum(parts) / len(parts) ** 2 if len(parts) == len(paired.tasks) else None
