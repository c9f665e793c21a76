"""Which distances between sets there are, and on which features each is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from sar_eval.networks.set_features import FeatureNetwork


@dataclass(frozen=True, slots=True)
class Features:
    """A kind of features: the name of its weights, and what makes its network of a path and a device."""

    weights: str
    make: Callable[[Path, str], FeatureNetwork]


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance.

    Attributes:
        features: name in `FEATURES`.
        formula: `frechet`, `kid` or `cmmd`.
        version: of the formula.
    """

    features: str
    formula: str
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        metrics: names in `METRICS`.
        weights: paths by name of weights, where they are not the fetched ones.
        device: torch device.
        batch_size: pictures of one forward pass; changes figures by rounding alone.
        seed: of subsets, resampling and samples.
        partial: measure what is there where pictures are missing.
        intervals: of KID and CMMD; KID's takes minutes for tens of thousands of pictures.
    """

    metrics: tuple[str, ...]
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    batch_size: int = 32
    seed: int = 0
    partial: bool = False
    intervals: bool = True

    @property
    def features(self) -> list[str]:
        """Names of the features that the metrics need, each once."""
        return list(dict.fromkeys(METRICS[name].features for name in self.metrics))

    @property
    def kept(self) -> frozenset[str]:
        """Those of them whose vectors are needed themselves."""
        return frozenset(m.features for n in self.metrics if (m := METRICS[n]).formula != "frechet")


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        BadInput: an unknown one.
    """
    for name in names:
        if name not in METRICS:
            raise BadInput(f"there is no metric {name!r}: {', '.join(METRICS)}")
    return tuple(dict.fromkeys(names))


def networks_for(settings: Settings) -> dict[str, FeatureNetwork]:
    """The networks of these metrics by name of the features; nothing is loaded yet.

    Raises:
        BadInput: weights are missing (the message says how to get them), or the device is.
    """
    from sar_eval.networks.set_features import check_device
    from sar_eval.tensors.published_weights import find_weights

    check_device(settings.device)
    networks = {}
    for name in settings.features:
        weights = FEATURES[name].weights
        path = settings.weights[weights] if weights in settings.weights else find_weights(weights)
        networks[name] = FEATURES[name].make(path, settings.device)
    return networks


def _make(kind: str, path: Path, device: str, **options: Any) -> FeatureNetwork:
    from sar_eval.networks import set_features  # torch, which statistics alone do not need

    network: FeatureNetwork = getattr(set_features, kind)(path, device, **options)
    return network


FEATURES = {
    "inception-clean": Features("inception-clean", partial(_make, "InceptionFeatures", form="clean")),
    "inception-torch": Features("inception-fid", partial(_make, "InceptionFeatures", form="torch")),
    "inception-tf": Features("inception-clean", partial(_make, "InceptionFeatures", form="tf")),
    "clip": Features("clip-l14-336", partial(_make, "ClipFeatures")),
    "dinov2": Features("dinov2-l14", partial(_make, "DinoFeatures")),
}
METRICS = {
    "fid-clean": Metric("inception-clean", "frechet"),
    "fid-torch": Metric("inception-torch", "frechet"),
    "fid-tf": Metric("inception-tf", "frechet"),
    "kid": Metric("inception-clean", "kid"),
    "cmmd": Metric("clip", "cmmd"),
    "fd-dinov2": Metric("dinov2", "frechet"),
}
