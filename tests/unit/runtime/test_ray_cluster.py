"""How many workers fit into a cluster."""

import pytest

from sar_eval.errors import BadInput
from sar_eval.runtime.ray_cluster import places

MACHINES = [{"CPU": 8.0}, {"CPU": 9.0, "GPU": 4.0}, {"CPU": 2.0, "GPU": 8.0}, {"memory": 1e9}]


@pytest.mark.parametrize(
    ("cpus", "gpus", "fitting"), [(1, 0, 19), (4, 0, 4), (1, 1, 6), (4, 1, 2), (2, 4, 2)]
)
def test_each_worker_has_its_place_on_one_machine(cpus: int, gpus: int, fitting: int) -> None:
    assert places(MACHINES, cpus, gpus) == fitting


def test_a_worker_too_large_for_every_machine_is_refused() -> None:
    with pytest.raises(
        BadInput, match="needs 4 CPUs and 8 GPUs, and no machine of the Ray cluster has as many"
    ):
        places(MACHINES, 4, 8)
