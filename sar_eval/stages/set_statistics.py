"""Statistics of a set in an `.npz` file: `mu` and `sigma` as clean-fid and pytorch-fid write, or `feats`.

Ours also say how many pictures there were (`n`), and how features were made (`features`).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.images.listing import shown
from sar_eval.stats.frechet import Gaussian
from sar_eval.storage.files import check_output, storage_errors, write_stream

NAMES = ("mu", "sigma", "feats", "units", "n", "features")
MAX_BYTES = 4_000_000_000  # of an array: 500,000 vectors of 2,048 numbers


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """What distances need of a set.

    Attributes:
        gaussian: for Fréchet distances; None if there is none.
        vectors: features `[N, D]` for KID and CMMD; None if they were not kept.
        units: number of the prompt or image of each vector.
        version: of the features; "" in the files of other tools.
        seen: pictures in all, of which `vectors` may be a sample; None if nobody wrote it down.
    """

    gaussian: Gaussian | None
    vectors: NDArray[Any] | None
    units: NDArray[np.int64] | None
    version: str
    seen: int | None

    @property
    def width(self) -> int:
        """Numbers of a feature vector."""
        known = self.gaussian.mean if self.gaussian is not None else self.kept()[0]
        return len(known)

    def kept(self) -> NDArray[Any]:
        """The vectors, where they are known to be there."""
        assert self.vectors is not None
        return self.vectors

    def units_of(self) -> NDArray[np.int64]:
        """Their units."""
        assert self.units is not None
        return self.units


def read_statistics(path: Path) -> SetStatistics:
    """Read such a file. Nothing in it is unpickled.

    Raises:
        BadInput: unreadable, neither `mu` and `sigma` nor `feats`, or arrays that do not fit.
    """
    arrays = _arrays(path)
    vectors, units, n = arrays.get("feats"), arrays.get("units"), arrays.get("n")
    number = int(n) if n is not None and n.ndim == 0 and n.dtype.kind in "iu" else None
    if vectors is not None and (vectors.ndim != 2 or not _is_finite(vectors) or not len(vectors)):
        raise BadInput(f"{shown(path)}: `feats` is no table of features [N, D]")
    if vectors is not None:
        units = np.arange(len(vectors)) if units is None else units
        if units.dtype.kind not in "iu" or units.shape != vectors.shape[:1]:
            raise BadInput(f"{shown(path)}: `units` has other lengths than `feats`")
    gaussian = _gaussian(arrays, number, path) if {"mu", "sigma"} & arrays.keys() else None
    if gaussian is None and vectors is None:
        raise BadInput(f"{shown(path)} holds neither `mu` and `sigma` nor `feats`: {', '.join(arrays)}")
    version = str(arrays["features"]) if "features" in arrays else ""
    seen = number if number is not None or vectors is None else len(vectors)
    return SetStatistics(gaussian, vectors, units, version, seen)


def write_statistics(path: Path, statistics: SetStatistics) -> None:
    """Write such a file; an existing one is replaced at once.

    Raises:
        StorageFailed: it cannot be written.
    """
    found: dict[str, Any] = {"features": statistics.version, "n": statistics.seen}
    if statistics.gaussian is not None:
        found |= {"mu": statistics.gaussian.mean, "sigma": statistics.gaussian.covariance}
    if statistics.vectors is not None:
        found |= {"feats": statistics.vectors, "units": statistics.units}
    target = check_output("--save-statistics", path)
    with storage_errors(target), write_stream(target) as file:
        np.savez(file, **found)


def _arrays(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise BadInput(f"{shown(path)} is a pipe or device, no statistics (.npz)")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            wanted = {name: members[name] for name in NAMES if name in members}
            _check_sizes(wanted, path)
            arrays = {name: _array(archive.read(member)) for name, member in wanted.items()}
    except SarEvalError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise anything from RuntimeError to TokenError
        why = " ".join(f"{error or type(error).__name__}".split())
        raise BadInput(f"{shown(path)} holds no readable statistics (.npz): {why}") from error
    if not arrays:
        others = ", ".join(map(shorten, members)) or "nothing"
        raise BadInput(f"{shown(path)} holds neither `mu` and `sigma` nor `feats`: {others}")
    return arrays


def _array(data: bytes) -> Any:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        # NumPy's own message advises to unpickle it.
        raise ValueError(
            "an array is damaged or of objects, which may be programs and are not read"
        ) from error


def _check_sizes(members: dict[str, zipfile.ZipInfo], path: Path) -> None:
    for name, member in members.items():
        if member.file_size > MAX_BYTES:
            raise BadInput(f"{shown(path)}: {name} has more than {MAX_BYTES:,} bytes")


def _gaussian(arrays: dict[str, Any], n: int | None, path: Path) -> Gaussian:
    mean, covariance = arrays.get("mu"), arrays.get("sigma")
    if mean is None or covariance is None or mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
        raise BadInput(f"{shown(path)}: `mu` must be [D] and `sigma` [D, D]")
    if not mean.size:
        raise BadInput(f"{shown(path)}: `mu` is empty")
    if not _is_finite(mean) or not _is_finite(covariance):
        raise BadInput(f"{shown(path)}: `mu` or `sigma` holds something else than finite numbers")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * max(1.0, np.abs(covariance).max())):
        raise BadInput(f"{shown(path)}: `sigma` is no covariance: it is not symmetric")
    if not _is_bounded(covariance):
        raise BadInput(
            f"{shown(path)}: `sigma` is no covariance: an entry exceeds what its diagonal allows"
        )
    return Gaussian(mean, covariance, n)


def _is_bounded(covariance: NDArray[np.float64]) -> bool:
    """Whether variances are positive and no covariance is larger than their geometric mean."""
    spread = np.sqrt(np.clip(np.diagonal(covariance), 0, None))
    rounding = 1e-6 * float(np.abs(covariance).max())
    is_covariance = np.abs(covariance) <= np.outer(spread, spread) * (1 + 1e-6) + rounding
    return bool(is_covariance.all())


def _is_finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "fiu" and bool(np.isfinite(values).all())
