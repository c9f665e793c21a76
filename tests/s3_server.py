"""A real S3 server on loopback (moto's), with a proxy in front that makes faults."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fault_proxy import Proxy, fault_proxy

REGION = "us-east-1"


@contextmanager
def s3_server() -> Iterator[Proxy]:
    """A server with the bucket `bucket`; environment variables must name the proxy's URL (`use`)."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        with fault_proxy(*server.get_host_and_port()) as proxy:
            make_bucket(proxy, "bucket")
            yield proxy
    finally:
        server.stop()


def make_bucket(proxy: Proxy, name: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{proxy.url}/{name}", method="PUT")).close()


def environment(proxy: Proxy) -> dict[str, str]:
    """What a process needs to find the server."""
    return {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def use(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the server in this process."""
    for name, value in environment(proxy).items():
        monkeypatch.setenv(name, value)
    proxy.faults.clear()
    proxy.requests.clear()
