"""Files and batches by the Python SDK. Each function is a test."""

import json
import time
from uuid import uuid4

import openai
import pytest
from openai import OpenAI
from openai.types import Batch, FileObject

ENDPOINT = "/v1/chat/completions"


def upload(client: OpenAI, *questions: str, **changes: object) -> FileObject:
    """Upload a file of chat completions with these questions."""
    body = {"model": "default"} | changes
    lines = [
        {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body | {"messages": [message]}}
        for number, message in enumerate({"role": "user", "content": question} for question in questions)
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    return client.files.create(file=("questions.jsonl", data), purpose="batch")


def make(client: OpenAI, file: FileObject, **fields: object) -> Batch:
    return client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **fields)  # type: ignore[arg-type]


def ended(client: OpenAI, batch: Batch) -> Batch:
    while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def a_file_is_uploaded_read_and_deleted(client: OpenAI) -> None:
    file = upload(client, "Why are there tides?")
    assert (file.filename, file.purpose) == ("questions.jsonl", "batch")
    assert client.files.retrieve(file.id).bytes == len(client.files.content(file.id).content) == file.bytes
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def files_are_listed_page_by_page(client: OpenAI) -> None:
    made = [upload(client, "Why are there tides?").id for _ in range(3)]
    listed = [file.id for file in client.files.list(purpose="batch", limit=2)]  # all pages
    assert [each for each in listed if each in made] == made[::-1]


def a_batch_is_answered(client: OpenAI) -> None:
    batch = ended(client, make(client, upload(client, "Why are there tides?", "Why is there wind?")))
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (2, 2, 0)
    assert batch.output_file_id is not None
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == ["line-0", "line-1"]
    for line in lines:
        assert (line["response"]["status_code"], line["error"]) == (200, None)
        assert line["response"]["body"]["object"] == "chat.completion"


def a_batch_with_a_bad_line_fails_and_names_it(client: OpenAI) -> None:
    batch = ended(client, make(client, upload(client, "Why are there tides?", temperature=99)))
    assert batch.status == "failed"
    assert batch.errors is not None
    (error,) = batch.errors.data or []
    assert (error.line, error.param) == (1, "temperature")


def a_batch_is_cancelled_and_keeps_its_metadata(client: OpenAI) -> None:
    batch = make(client, upload(client, *(f"Question {number}" for number in range(1000))), metadata={"topic": "sea"})
    client.batches.cancel(batch.id)
    batch = ended(client, batch)
    assert (batch.status, batch.metadata) == ("cancelled", {"topic": "sea"})


def batches_are_listed_page_by_page(client: OpenAI) -> None:
    file = upload(client, "Why are there tides?")
    made = [make(client, file).id for _ in range(3)]
    listed = [batch.id for batch in client.batches.list(limit=2)]  # all pages
    assert [each for each in listed if each in made] == made[::-1]
    for each in made:
        ended(client, client.batches.retrieve(each))


def a_repeated_batch_with_its_key_is_made_once(client: OpenAI) -> None:
    file, headers = upload(client, "Why are there tides?"), {"Idempotency-Key": uuid4().hex}
    first, again = (make(client, file, extra_headers=headers) for _ in range(2))
    assert first.id == again.id


def an_unknown_file_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.batches.create(input_file_id="file-404", endpoint=ENDPOINT, completion_window="24h")
    assert raised.value.param == "input_file_id"
