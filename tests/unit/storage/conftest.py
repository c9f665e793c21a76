"""A real S3 server for the tests of stores."""

from collections.abc import Iterator

import pytest

from tests.fault_proxy import Proxy
from tests.s3_server import s3_server, use


@pytest.fixture(scope="session")
def s3_process() -> Iterator[Proxy]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def s3(s3_process: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The server, without faults; this process finds it as s3://bucket."""
    use(s3_process, monkeypatch)
    return s3_process
