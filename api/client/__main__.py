"""The client's commands: `promptwire --help`, or `python -m api.client --help`."""

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TextIO, get_args

import click

from .client import Client
from .credentials import gather
from .errors import ClientError
from .options import Exit, Options, common_options, exit_code, version_option
from .output import Output, ending, in_full, is_queued, local_time, on_one_line, printable
from .resources import Event, Prompt, Status

EPILOG = """Exit codes: 0 fine; 1 the prompt failed or was cancelled; 2 called wrongly; 3 refused; 4 not logged in;
5 the server cannot be reached, or is too busy; 130 interrupted."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@common_options
def main() -> None:
    """Promptwire: submit prompts, follow their answers, find them again."""


_credentials = click.option("--credentials", type=click.File(encoding="utf-8"), help="JSON: {username, password}.")
_password_file = click.option("--password-file", type=click.File(encoding="utf-8"), help="Its first line is taken.")
_prompt_id = click.argument("prompt_id", metavar="ID", type=click.IntRange(1))
_wait = click.option("--wait", is_flag=True, help="Wait for the answer, and show only that.")
_follow = click.option("--follow", is_flag=True, help="Show the answer as it is generated.")


@main.command()
@click.argument("username", required=False)
@_credentials
@_password_file
@common_options
@click.pass_obj
def login(options: Options, username: str | None, credentials: TextIO | None, password_file: TextIO | None) -> None:
    """Log in, as all other commands need.

    The password is asked for without echo, or taken from --credentials, --password-file, PROMPTWIRE_PASSWORD or stdin.
    """
    with options.client() as client:
        username, password = gather(username, credentials, password_file)
        with options.output.working("Logging in …"):
            client.login(username, password)
        options.output.result({"url": client.url, "username": username}, f"Logged in to {client.url} as {username}.")


@main.command()
@common_options
@click.pass_obj
def logout(options: Options) -> None:
    """End the login, here and on the server."""
    with options.client() as client:
        username = client.username
        client.logout()
        options.output.result({"url": client.url, "username": username}, f"Logged {username} out of {client.url}.")


@main.command()
@click.argument("username", required=False)
@_credentials
@_password_file
@common_options
@click.pass_obj
def register(options: Options, username: str | None, credentials: TextIO | None, password_file: TextIO | None) -> None:
    """Add a user, where registration is open. The password comes as for login."""
    with options.client() as client:
        username, password = gather(username, credentials, password_file, confirm=True)
        user = client.register(username, password)
        options.output.result(user, f"Registered {user['username']}; now log in.")


@main.command()
@click.argument("text")
@_wait
@_follow
@click.option("--history", metavar="K", type=click.IntRange(0), help="Have it know of K earlier exchanges.")
@click.option("--cache/--no-cache", default=None, help="Whether an earlier, nearly equal prompt's answer will do.")
@click.option("--key", help="The same key and text within 24 hours make one prompt.")
@common_options
@click.pass_obj
def submit(
    options: Options,
    text: str,
    wait: bool,
    follow: bool,
    history: int | None,
    cache: bool | None,
    key: str | None,
) -> Exit:
    """Submit a prompt: TEXT, or stdin if that is "-"."""
    text = sys.stdin.buffer.read().decode().rstrip("\n") if text == "-" else text
    with options.client() as client:
        return _answer(
            options.output,
            client,
            lambda: client.submit(text, history=history, cache=cache, key=key),
            wait,
            follow,
            is_queued,
        )


@main.command()
@_prompt_id
@_wait
@_follow
@common_options
@click.pass_obj
def show(options: Options, prompt_id: int, wait: bool, follow: bool) -> Exit:
    """Show a prompt and its answer."""
    with options.client() as client:
        return _answer(options.output, client, lambda: client.show(prompt_id), wait, follow, in_full)


@main.command()
@_prompt_id
@_wait
@_follow
@common_options
@click.pass_obj
def retry(options: Options, prompt_id: int, wait: bool, follow: bool) -> Exit:
    """Queue a failed or cancelled prompt again."""
    with options.client() as client:
        return _answer(options.output, client, lambda: client.retry(prompt_id), wait, follow, is_queued)


@main.command()
@_prompt_id
@common_options
@click.pass_obj
def cancel(options: Options, prompt_id: int) -> None:
    """End a prompt that has not ended yet, for good."""
    with options.client() as client:
        options.output.result(client.cancel(prompt_id), f"Prompt {prompt_id} is cancelled.")


@main.command()
@_prompt_id
@common_options
@click.pass_obj
def delete(options: Options, prompt_id: int) -> None:
    """Delete a prompt and its answer."""
    with options.client() as client:
        client.delete(prompt_id)
    options.output.note(f"Prompt {prompt_id} is deleted.")


@main.command("list")
@click.option("--status", type=click.Choice(get_args(Status)), help="Only those.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--all", "everything", is_flag=True, help="However many there are.")
@common_options
@click.pass_obj
def list_prompts(options: Options, status: Status | None, limit: int, everything: bool) -> None:
    """Show your prompts, newest first."""
    with options.client() as client:
        _list(options.output, client.prompts(status=status, limit=None if everything else limit))


@main.command()
@click.argument("text")
@click.option("--limit", type=click.IntRange(1, 50), default=5, show_default=True, help="How many.")
@click.option("--max-score", type=click.FloatRange(0), help="How far they may be: 0 is the same, about 2 unrelated.")
@common_options
@click.pass_obj
def similar(options: Options, text: str, limit: int, max_score: float | None) -> None:
    """Show your answered prompts that are most like TEXT, nearest first."""
    with options.client() as client:
        found = client.similar(text, limit=limit, max_score=max_score)
    options.output.results(
        found,
        ("ID", "SCORE", "PROMPT"),
        lambda prompt: (str(prompt["id"]), f"{prompt['similarity_score']:.3f}", on_one_line(prompt["prompt_text"])),
    )


@main.command()
@click.option("--since", metavar="SEQ", type=click.IntRange(0), help="Begin after this event; 0 is before the first.")
@click.option("--limit", type=click.IntRange(1), help="End after so many.")
@common_options
@click.pass_obj
def listen(options: Options, since: int | None, limit: int | None) -> None:
    """Show finished prompts as they finish, until Ctrl-C."""
    output = options.output
    with options.client() as client:
        output.hint("Listening; Ctrl-C ends it.")
        shown = 0
        for event in client.listen(since=since):
            if event["type"] == "reset":
                output.note("Events are not kept so far back. These are your prompts as they are:")
                if output.as_json:
                    output.result(event, "")
                _list(output, client.prompts())
                continue
            output.result(event, ending(event))
            shown += 1
            if shown == limit:
                return


def _list(output: Output, prompts: Iterable[Prompt]) -> None:
    output.results(
        prompts,
        ("ID", "STATUS", "SUBMITTED", "PROMPT"),
        lambda prompt: (
            str(prompt["id"]),
            prompt["status"],
            local_time(prompt["created_at"]),
            on_one_line(prompt["prompt_text"]),
        ),
    )


def _answer(
    output: Output,
    client: Client,
    begin: Callable[[], Prompt],
    wait: bool,
    follow: bool,
    describe: Callable[[Prompt], str],
) -> Exit:
    """Shows a prompt as it is, or its answer when it is there, or while it comes."""
    if follow:
        return _show_text(output, client.follow(begin))
    with output.working("Asking …"):
        prompt = begin()
    if not wait:
        output.result(prompt, describe(prompt))
        return Exit.FINE
    try:
        with output.working(f"Waiting for the answer to prompt {prompt['id']} …"):
            prompt = client.wait(prompt["id"])
    except KeyboardInterrupt:
        output.hint(f"Prompt {prompt['id']} goes on; `show {prompt['id']} --wait` waits for it again.")
        raise
    if output.as_json:
        output.result(prompt, "")
    elif prompt["status"] == "completed":
        output.result(prompt, prompt["response_text"] or "")
    return _end(output, prompt["id"], prompt["status"], prompt["error"])


def _show_text(output: Output, events: Iterable[Event]) -> Exit:
    attempt: int | None = None
    with ExitStack() as waiting:
        waiting.enter_context(output.working("Waiting for the answer …"))
        for event in events:
            waiting.close()
            if output.as_json:
                output.result(event, "")
            elif event["type"] == "prompt.delta":
                if attempt is not None and attempt != event["attempt"]:
                    output.text("\n")
                    output.note("That broke off; it begins anew.")
                attempt = event["attempt"]
                output.text(event["text"])
    if attempt is not None:
        output.text("\n")
    return _end(output, event["id"], event["type"].removeprefix("prompt."), event.get("error"))


def _end(output: Output, prompt_id: int, end: str, error: str | None) -> Exit:
    if end == "completed":
        return Exit.FINE
    output.note(f"Prompt {prompt_id} {'failed' if end == 'failed' else f'was {end}'}.{f' {error}' if error else ''}")
    return Exit.REFUSED if end == "deleted" else Exit.FAILED


def run() -> Exit:
    """Runs the command of the arguments. Returns how it ended; if not well, a sentence on stderr has said why."""
    try:
        return Exit(main.main(standalone_mode=False) or Exit.FINE)
    except click.Abort:  # Ctrl-C
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except ClientError as error:
        click.echo(f"Error: {printable(str(error))}", err=True)
        return exit_code(error)
    except UnicodeError:
        click.echo("Error: the text is not UTF-8.", err=True)
        return Exit.USAGE
    except OSError as error:  # of the file that keeps the login
        click.echo(f"Error: {error}", err=True)
        return Exit.USAGE


if __name__ == "__main__":
    sys.exit(run())
