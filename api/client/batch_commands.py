"""The commands `promptwire batch …`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .batches import Batch, is_whole
from .client import Client
from .file_commands import write
from .options import Exit, Integer, Options, common_options
from .time_limit import TimeLimitReached


@click.group()
@common_options
def batch() -> None:
    """Answer files of requests, with low priority."""


_id = click.argument("batch_id", metavar="ID")


@batch.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--endpoint", default="/v1/chat/completions", show_default=True, help="The url of the lines.")
@click.option("--window", default="24h", show_default=True, help="The completion window: hours, such as 24h.")
@click.option("--metadata", metavar="KEY=VALUE", multiple=True, help="A note for yourself; repeatable.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and show its progress.")
@common_options
@click.pass_obj
def submit(options: Options, file: Path, endpoint: str, window: str, metadata: tuple[str, ...], wait: bool) -> None:
    """Upload a FILE of requests, and have them answered.

    The file has a line of JSON for each request.
    """
    pairs = dict(_pair(each) for each in metadata)
    with options.client() as client:
        with options.output.progress(f"Uploading {file.name} …"):
            uploaded = client.batches.upload(file)
        created = client.batches.create(
            uploaded["id"], endpoint=endpoint, completion_window=window, metadata=pairs or None
        )
        if wait:
            created = _wait(options, client, created["id"])
    _show(options, created)


@batch.command()
@_id
@common_options
@click.pass_obj
def show(options: Options, batch_id: str) -> None:
    """Show a batch: its status, its counts, and why it failed."""
    with options.client() as client:
        options.output.result(found := client.batches.show(batch_id), description(found))


@batch.command("list")
@click.option("--limit", type=Integer(1), default=20, show_default=True)
@common_options
@click.pass_obj
def list_batches(options: Options, limit: int) -> None:
    """Show your batches, newest first."""
    with options.client() as client:
        found = list(client.batches.list(limit=limit))
    options.output.results(found, ("ID", "STATUS", "LINES", "COMPLETED", "FAILED"), _row)


@batch.command()
@_id
@common_options
@click.pass_obj
def wait(options: Options, batch_id: str) -> None:
    """Wait until a batch has ended, with a progress bar. Exit code 1 unless every line was answered."""
    with options.client() as client:
        ended = _wait(options, client, batch_id)
    _show(options, ended)


@batch.command()
@_id
@common_options
@click.pass_obj
def cancel(options: Options, batch_id: str) -> None:
    """Cancel a batch. What is finished is kept."""
    with options.client() as client:
        options.output.result(found := client.batches.cancel(batch_id), description(found))


@batch.command()
@_id
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--errors", is_flag=True, help="The lines that were not answered, instead of the answers.")
@common_options
@click.pass_obj
def download(options: Options, batch_id: str, file: Path, errors: bool) -> None:
    """Write the answers of a batch that has ended to FILE."""
    with options.client() as client:
        found = client.batches.show(batch_id)
        file_id = found["error_file_id"] if errors else found["output_file_id"]
        if file_id is None:
            kind = "errors" if errors else "answers"
            options.output.note(f"The batch {batch_id} has no {kind} ({found['status']}).")
            click.get_current_context().exit(Exit.FAILED)
        with options.output.progress(f"Downloading {file.name} …"):
            size = write(file, client.batches.content(file_id))
    options.output.note(f"Wrote {size} bytes to {file}.")


def _wait(options: Options, client: Client, batch_id: str) -> Batch:
    try:
        with options.time_limit(), _progress_bar(options) as on_progress:
            return client.batches.wait(batch_id, on_progress)
    except (KeyboardInterrupt, TimeLimitReached):
        options.output.note(f"The batch has not ended: `promptwire batch wait {batch_id}` waits for it again.")
        raise


@contextmanager
def _progress_bar(options: Options) -> Iterator[Callable[[Batch], None]]:
    """Shows how many lines have ended, if stderr is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = options.output.stderr
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("validating", total=None)

        def update(batch: Batch) -> None:
            counts = batch["request_counts"]
            done = counts["completed"] + counts["failed"]
            progress.update(task, description=batch["status"], total=counts["total"] or None, completed=done)

        yield update


def _show(options: Options, found: Batch) -> None:
    """Print a batch. Ends the command with code 1 if it has ended and lines of it were not answered."""
    options.output.result(found, description(found))
    is_bad = found["status"] in ("failed", "expired", "cancelled")
    if is_bad or (found["status"] == "completed" and not is_whole(found)):
        click.get_current_context().exit(Exit.FAILED)


def description(batch: Batch) -> str:
    """A batch as text."""
    counts = batch["request_counts"]
    lines = [f"{batch['id']}: {batch['status']}"]
    if counts["total"]:
        lines[0] += f", {counts['completed']} of {counts['total']} lines completed, {counts['failed']} failed"
    for error in (batch["errors"] or {"data": []})["data"]:
        where = f"line {error['line']}: " if error["line"] is not None else ""
        lines.append(f"{where}{error['message']}")
    return "\n".join(lines)


def _row(batch: Batch) -> tuple[str, ...]:
    counts = batch["request_counts"]
    return batch["id"], batch["status"], str(counts["total"]), str(counts["completed"]), str(counts["failed"])


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint="--metadata")
    return key, value
