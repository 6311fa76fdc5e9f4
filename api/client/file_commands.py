"""The commands `promptwire files …`, and how a file is written."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from .batches import File
from .options import Options, common_options
from .output import one_line


@click.group()
@common_options
def files() -> None:
    """The files of your batches."""


_id = click.argument("file_id", metavar="ID")


@files.command("list")
@common_options
@click.pass_obj
def list_files(options: Options) -> None:
    """Show your files, newest first."""
    with options.client() as client:
        options.output.results(client.batches.files(), ("ID", "PURPOSE", "BYTES", "CREATED", "NAME"), _row)


@files.command()
@_id
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@common_options
@click.pass_obj
def download(options: Options, file_id: str, file: Path) -> None:
    """Write the content to FILE."""
    with options.client() as client, options.output.progress(f"Downloading {file.name} …"):
        size = write(file, client.batches.content(file_id))
    options.output.note(f"Wrote {size} bytes to {file}.")


@files.command()
@_id
@common_options
@click.pass_obj
def delete(options: Options, file_id: str) -> None:
    """Delete a file. One that a batch still reads is kept."""
    with options.client() as client:
        client.batches.delete_file(file_id)
    options.output.note(f"File {file_id} was deleted.")


def write(file: Path, parts: Iterator[bytes]) -> int:
    """Write a file, which exists only once it is complete; or to a pipe or a device. Returns the size."""
    if file.exists() and not file.is_file():
        with file.open("wb") as output:
            return sum(output.write(part) for part in parts)
    file = file.resolve()  # a link stays one
    partial_file = file.with_name(f"{file.name}.part")
    try:
        with partial_file.open("wb") as output:
            size = sum(output.write(part) for part in parts)
        partial_file.replace(file)
    finally:
        partial_file.unlink(missing_ok=True)
    return size


def _row(file: File) -> tuple[str, ...]:
    created = datetime.fromtimestamp(file["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return file["id"], file["purpose"], str(file["bytes"]), created, one_line(file["filename"])
