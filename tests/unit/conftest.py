"""Fixtures of the client's tests: an API that answers what a test says."""

from collections.abc import Iterator

import pytest

from tests.support.stub_api import Answer, StubApi, stub_api


@pytest.fixture(scope="session")
def stub_server() -> Iterator[StubApi]:
    with stub_api() as running:
        yield running


@pytest.fixture
def stub(stub_server: StubApi) -> StubApi:
    stub_server.answers, stub_server.requests = [Answer()], []
    return stub_server
