"""The provider `openai` at servers that tests script byte by byte."""

import json
from typing import Any

import pytest

from shared.errors import ProviderError
from shared.providers import GenerationRequest, Usage
from shared.providers.openai_endpoint import Endpoint
from shared.providers.openai_generator import OpenAIGenerator
from tests.support.dialects import JSON
from tests.support.raw_server import response
from tests.support.servers import MAX_WAIT_SECONDS

KEY = "sk-test-4Zb9aQ7kWm2xT0e"


def generator(url: str, **options: Any) -> OpenAIGenerator:
    return OpenAIGenerator(Endpoint(url, KEY, timeout_seconds=MAX_WAIT_SECONDS), "m", **options)


def ask(made: OpenAIGenerator) -> str:
    *texts, usage = made.generate(GenerationRequest("Why?"))
    assert isinstance(usage, Usage)
    return "".join(map(str, texts))


def failure(made: OpenAIGenerator) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        ask(made)
    return raised.value


def refusal(status: str = "400 Bad Request", **error: Any) -> bytes:
    return response(json.dumps({"error": error}).encode(), JSON, status, length=True)


def body(request: bytes) -> dict[str, Any]:
    return json.loads(request.partition(b"\r\n\r\n")[2])


def path(request: bytes) -> str:
    return request.split()[1].decode()
