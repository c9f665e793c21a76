"""A real S3 server for the tests of stores."""

from collections.abc import Iterator

import pytest

from tests.fault_proxy import Proxy
from tests.gcs_server import gcs_server
from tests.s3_server import s3_server, use


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks a server takes seconds to import its client: such tests are slow ones."""
    for item in items:
        if {"s3", "gcs"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture(scope="session")
def gcs_process() -> Iterator[tuple[str, list[str]]]:
    pytest.importorskip("gcsfs")
    with gcs_server() as (url, bucket):
        yield url, bucket.failures


@pytest.fixture
def gcs(gcs_process: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An emulator of Google's API, as gs://bucket; each reason in the list loses an upload's answer."""
    url, failures = gcs_process
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it asks Google itself by gRPC
    failures.clear()
    return failures
