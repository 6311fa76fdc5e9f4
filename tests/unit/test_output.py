"""The log of `make up`: no process waits for a reader that is slow, paused or gone."""

import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.local.output import MAX_LINES, Output
from tests.support.servers import MAX_WAIT_SECONDS, ROOT


class Pipe:
    """An Output that writes into a pipe, and the pipe's reader."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.writer = writer
        self.output = Output(writer)

    def read_until(self, end: str) -> str:
        text = ""
        while end not in text:
            readable, _, _ = select.select([self.reader], [], [], MAX_WAIT_SECONDS)
            assert readable, f"{end!r} did not come"
            text += os.read(self.reader, 65_536).decode()
        return text

    def leave(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    if pipe.reader >= 0:
        pipe.leave()
    pipe.output.write("", "")  # so that its thread ends
    pipe.output.flush(MAX_WAIT_SECONDS)
    os.close(pipe.writer)


def test_lines_have_the_name_of_their_process(pipe: Pipe) -> None:
    pipe.output.write("api", "one")
    pipe.output.write("postgres", "two")
    assert pipe.read_until("two\n") == "api      | one\npostgres | two\n"


def test_a_reader_that_leaves_is_noticed_without_writing(pipe: Pipe) -> None:
    assert not pipe.output.is_closed()
    pipe.leave()
    assert pipe.output.is_closed()


def test_lines_for_a_reader_that_left_are_forgotten(pipe: Pipe) -> None:
    pipe.leave()
    for i in range(3 * MAX_LINES):
        pipe.output.write("api", str(i))
    pipe.output.flush(MAX_WAIT_SECONDS)
    assert not pipe.output._lines
    assert pipe.output.is_closed()


def test_a_paused_reader_makes_nobody_wait_and_finds_out_what_was_dropped(pipe: Pipe) -> None:
    count = 5 * MAX_LINES
    for i in range(count):  # it would hang here
        pipe.output.write("api", f"line {i} {'x' * 100}")
    assert len(pipe.output._lines) <= MAX_LINES
    pipe.output.flush(0.01)  # it returns
    assert not pipe.output.is_closed()
    with ThreadPoolExecutor() as reading:
        received = reading.submit(pipe.read_until, "last")
        pipe.output.flush(MAX_WAIT_SECONDS)  # otherwise the last line might be dropped, too
        pipe.output.write("api", "last")
    text = received.result(MAX_WAIT_SECONDS)
    dropped = sum(map(int, re.findall(r"up       \| (\d+) lines were dropped", text)))
    assert dropped > 0
    assert text.count("api      | line ") + dropped == count


def test_flush_waits_until_all_lines_are_printed(pipe: Pipe) -> None:
    for i in range(MAX_LINES - 1):
        pipe.output.write("api", f"line {i} {'x' * 1000}")
    pipe.output.write("api", "last")
    with ThreadPoolExecutor() as reading:
        received = reading.submit(pipe.read_until, "last")
        pipe.output.flush(MAX_WAIT_SECONDS)
    assert received.result(MAX_WAIT_SECONDS).endswith("last\n")


def test_control_characters_are_escaped(pipe: Pipe) -> None:
    pipe.output.write("valkey", "a\x1b[2Jb\0c\x9bd\te")
    assert pipe.read_until("\n") == "valkey   | a\\x1b[2Jb\\x00c\\x9bd\te\n"


def test_a_descriptor_that_others_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    for i in range(MAX_LINES - 1):
        pipe.output.write("api", f"line {i} {'x' * 200}")
    pipe.output.write("api", "last")
    assert pipe.read_until("last").count("line ") == MAX_LINES - 1


def test_a_stdout_that_was_closed_from_the_start_is_like_the_null_device() -> None:
    program = "from infra.local.output import Output; o = Output(); o.write('', ''); o.flush(60); exit(o.is_closed())"
    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, program], cwd=ROOT, check=True, timeout=MAX_WAIT_SECONDS
    )
