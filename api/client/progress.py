"""The progress line of a command that waits, on a terminal."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions
from rich.text import Text

from .errors import ClientError
from .output import Output, one_line, printable, shorten
from .resources import UNFINISHED, Prompt, Waiting

_POLL_SECONDS = 2.0


class ProgressLine:
    """Describes the state of a prompt each time that it is drawn: the time so far, its place, or its provider."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self._started = time.monotonic()

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        seconds = int(time.monotonic() - self._started)
        state = f"Prompt {self.prompt['id']}: {describe(self.prompt, datetime.now(UTC))}"
        yield Text(shorten(f"{duration(seconds)}  {printable(state)}", options.max_width))


@contextmanager
def progress_line(output: Output, prompt: Prompt, read: Callable[[int], Prompt]) -> Iterator[Callable[[], None]]:
    """Show a progress line while the block runs, if stderr is a terminal. The block may remove it earlier.

    Another thread reads the prompt now and then, because the block is busy with waiting.
    """
    if not output.is_interactive:
        yield lambda: None
        return
    line, is_over = ProgressLine(prompt), threading.Event()
    with output.stderr.status(line) as status:

        def stop() -> None:
            is_over.set()
            status.stop()

        threading.Thread(target=_poll, args=(line, read, is_over), daemon=True).start()
        try:
            yield stop
        finally:
            is_over.set()


def _poll(line: ProgressLine, read: Callable[[int], Prompt], is_over: threading.Event) -> None:
    while line.prompt["status"] in UNFINISHED and not is_over.wait(_POLL_SECONDS):
        try:
            line.prompt = read(line.prompt["id"])
        except ClientError:
            continue  # the main thread reports errors
        except RuntimeError:  # the client was closed meanwhile
            return


def describe(prompt: Prompt, now: datetime) -> str:
    """What an unfinished prompt waits for, such as `3rd in line`."""
    if waiting := prompt.get("waiting_for"):
        return _describe_waiting(waiting, now)
    if position := prompt.get("position"):
        return "next in line" if position == 1 else f"{ordinal(position)} in line"
    if prompt["status"] == "processing":
        attempt = prompt["attempt"]
        return "being answered" if attempt <= 1 else f"being answered, {ordinal(attempt)} attempt"
    return "waits for its turn" if prompt["status"] == "queued" else prompt["status"]


def _describe_waiting(waiting: Waiting, now: datetime) -> str:
    detail = one_line(waiting["detail"]).rstrip(".")
    if waiting["next_attempt_at"] is None:
        return detail
    seconds = (datetime.fromisoformat(waiting["next_attempt_at"]) - now).total_seconds()
    detail = detail[:1].lower() + detail[1:]
    retry = f"next try in {duration(int(seconds))}" if seconds >= 1 else "next try now"
    return f"waiting for the provider: {detail}, {retry}"


def ordinal(number: int) -> str:
    """The number as 1st, 2nd, 3rd, 4th … 11th … 21st."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def duration(seconds: int) -> str:
    """The seconds as `8 s`, `2:05 min` or `1:02:05 h`."""
    minutes, rest = divmod(seconds, 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
