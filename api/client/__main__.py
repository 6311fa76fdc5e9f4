"""The command line of the client: `promptwire --help`, or `python -m api.client --help`."""

import os
import sys
import traceback
import webbrowser
from copy import copy
from functools import partial
from typing import Any, TextIO, get_args

import click

from .account_commands import account, export
from .admin_commands import admin
from .batch_commands import batch
from .credentials import password_file_option, read_credentials
from .display import show_answer, show_list
from .errors import ClientError
from .examples import add_examples
from .file_commands import files
from .help_commands import COMPLETION_VARIABLE, SECTIONS, completion, help_command
from .key_commands import keys
from .options import API_KEY_VARIABLE, READ_FILE, Exit, Integer, Number, Options, common_options, exit_code
from .output import Output, event_line, full_text, one_line, printable, status_line
from .request_options import filter_options, request_options, usage_options
from .resources import Priority, PromptFilter, RequestOptions, SearchMode, SimilarPrompt, Status, UsageBy
from .time_limit import TimeLimitReached
from .usage_table import usage_text
from .webhook_commands import webhooks


@click.group(epilog=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@common_options
def main() -> None:
    """Promptwire: submit prompts, follow their answers, and find them again."""


_credentials = click.option("--credentials", type=READ_FILE, help='A JSON file: {"username": …, "password": …}.')
_prompt_id = click.argument("prompt_id", metavar="ID", type=Integer(1))
_wait = click.option("--wait", is_flag=True, help="Wait for the answer and print only the answer.")
_follow = click.option("--follow", is_flag=True, help="Print the answer as it is generated.")


@main.command()
@click.argument("username", required=False)
@_credentials
@password_file_option
@click.option("--browser", is_flag=True, help="Log in at the server's identity provider, with a browser here.")
@common_options
@click.pass_obj
def login(
    options: Options, username: str | None, credentials: TextIO | None, password_file: TextIO | None, browser: bool
) -> None:
    """Log in. All other commands but register need a login, or an API key in PROMPTWIRE_API_KEY.

    The password comes from --credentials, --password-file, PROMPTWIRE_PASSWORD, a prompt without echo, or stdin.
    """
    with options.client() as client:
        if browser:
            username = client.login_with_browser(partial(_open_browser, options.output))
        else:
            username, password = read_credentials(username, credentials, password_file)
            with options.output.progress("Logging in …"):
                client.login(username, password)
        options.output.result({"url": client.url, "username": username}, f"Logged in to {client.url} as {username}.")
        if options.api_key is not None:
            options.output.note(f"{API_KEY_VARIABLE} is set, so the other commands use that key and not this login.")


def _open_browser(output: Output, url: str) -> None:
    output.note(f"Log in with your browser. If none opens, open this address on this machine:\n{url}")
    stdout = os.dup(1)
    os.dup2(2, 1)  # browsers print, too, and stdout is for results
    try:
        webbrowser.open(url)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


@main.command()
@common_options
@click.pass_obj
def logout(options: Options) -> None:
    """Log out, here and on the server."""
    with options.client() as client:
        username = client.logout()
        options.output.result({"url": client.url, "username": username}, f"Logged {username} out of {client.url}.")


@main.command()
@click.argument("username", required=False)
@_credentials
@password_file_option
@common_options
@click.pass_obj
def register(options: Options, username: str | None, credentials: TextIO | None, password_file: TextIO | None) -> None:
    """Register a user, where registration is open. The password comes from the same places as for login."""
    with options.client() as client:
        username, password = read_credentials(username, credentials, password_file, confirm=True)
        user = client.register(username, password)
        options.output.result(user, f"Registered {user['username']}; now log in.")


@main.command()
@click.argument("text")
@_wait
@_follow
@click.option("--history", metavar="K", type=Integer(0), help="Give the model K earlier exchanges as context.")
@click.option(
    "--cache/--no-cache", default=None, help="Whether to accept the answer of an earlier, nearly identical prompt."
)
@click.option("--priority", type=click.Choice(get_args(Priority)), default="default", help="low: behind all others.")
@click.option("--key", help="Idempotency key: the same key and text within 24 hours create one prompt.")
@request_options
@common_options
@click.pass_obj
def submit(
    options: Options,
    text: str,
    wait: bool,
    follow: bool,
    history: int | None,
    cache: bool | None,
    priority: Priority,
    key: str | None,
    request: RequestOptions,
) -> Exit:
    """Submit a prompt: TEXT, or stdin if TEXT is "-"."""
    text = sys.stdin.buffer.read().decode().rstrip("\n") if text == "-" else text
    with options.client() as client:
        return show_answer(
            options,
            client,
            lambda: client.submit(text, history=history, cache=cache, priority=priority, key=key, **request),
            wait,
            follow,
            status_line,
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
        return show_answer(options, client, lambda: client.show(prompt_id), wait, follow, full_text)


@main.command()
@_prompt_id
@_wait
@_follow
@common_options
@click.pass_obj
def retry(options: Options, prompt_id: int, wait: bool, follow: bool) -> Exit:
    """Queue a failed or cancelled prompt again."""
    with options.client() as client:
        return show_answer(options, client, lambda: client.retry(prompt_id), wait, follow, status_line)


@main.command()
@_prompt_id
@common_options
@click.pass_obj
def cancel(options: Options, prompt_id: int) -> None:
    """Cancel an unfinished prompt for good."""
    with options.client() as client:
        options.output.result(client.cancel(prompt_id), f"Prompt {prompt_id} was cancelled.")


@main.command()
@_prompt_id
@common_options
@click.pass_obj
def delete(options: Options, prompt_id: int) -> None:
    """Delete a prompt and its answer."""
    with options.client() as client:
        client.delete(prompt_id)
    options.output.note(f"Prompt {prompt_id} was deleted.")


@main.command("list")
@click.option("--status", type=click.Choice(get_args(Status)), help="Show only prompts with this status.")
@click.option("--limit", type=Integer(1), default=20, show_default=True, help="How many prompts to show.")
@click.option("--all", "everything", is_flag=True, help="Show all prompts.")
@filter_options
@common_options
@click.pass_obj
def list_prompts(options: Options, status: Status | None, limit: int, everything: bool, matching: PromptFilter) -> None:
    """Show your prompts, newest first."""
    with options.client() as client:
        show_list(options.output, client.prompts(status=status, limit=None if everything else limit, **matching))


@main.command("search")
@click.argument("text")
@click.option("--limit", type=Integer(1, 50), default=5, show_default=True, help="How many prompts to show.")
@click.option("--max-score", type=Number(0), help="The greatest distance: 0 is the same text, about 2 unrelated.")
@click.option(
    "--mode",
    type=click.Choice(get_args(SearchMode)),
    help="Compare meanings, find words such as names and error codes, or do both.  [vector]",
)
@filter_options
@common_options
@click.pass_obj
def search(options: Options, /, text: str, matching: PromptFilter, **query: Any) -> None:
    """Find answered prompts that are most like TEXT.

    By meaning, or with --mode by words. The best matches come first.
    """
    with options.client() as client:
        found = client.similar(text, **query, **matching)
    options.output.results(found, ("ID", "SCORE", "PROMPT"), _similar_row)


def _similar_row(prompt: SimilarPrompt) -> tuple[str, str, str]:
    score = prompt["similarity_score"]
    return str(prompt["id"]), "" if score is None else f"{score:.3f}", one_line(prompt["prompt_text"])


@main.command()
@usage_options(get_args(UsageBy), default="day")
@common_options
@click.pass_obj
def usage(options: Options, query: dict[str, Any]) -> None:
    """Show the tokens and the cost of your prompts, and your budgets."""
    with options.client() as client:
        report = client.usage(**query)
    options.output.result(report, usage_text(report))


@main.command()
@common_options
@click.pass_obj
def models(options: Options) -> None:
    """Show the models that you may use, the default first.

    The last one is the embedder, which makes the vectors of searches: `submit` does not take it.
    """
    with options.client() as client:
        options.output.results(client.models(), ("NAME",), lambda model: (one_line(model["id"]),))


@main.command()
@click.option("--since", metavar="SEQ", type=Integer(0), help="Start after this event; 0 starts with the first.")
@click.option("--limit", type=Integer(1), help="Stop after this many events.")
@common_options
@click.pass_obj
def listen(options: Options, since: int | None, limit: int | None) -> None:
    """Show each prompt when it finishes or is deleted, until Ctrl-C."""
    output = options.output
    with options.client() as client, options.time_limit():
        output.hint("Listening. Press Ctrl-C to stop.")
        count = 0
        for event in client.listen(since=since, everything=True):
            if event["type"] == "reset":
                output.note("The server no longer has all of these events. Here are your prompts instead:")
                if output.as_json:
                    output.result(event, "")
                show_list(output, client.prompts())
                continue
            output.result(event, event_line(event))
            count += 1
            if count == limit:
                return


main.add_command(copy(export))
_similar = copy(search)  # its first name
_similar.hidden = True
main.add_command(_similar, "similar")
for _group in (account, admin, batch, files, keys, webhooks):
    main.add_command(_group)
main.add_command(completion)
main.add_command(help_command)
add_examples(main)


def run() -> Exit:
    """Run the command in sys.argv and return its exit code. An error is explained in a sentence on stderr."""
    try:
        return Exit(main.main(complete_var=COMPLETION_VARIABLE, standalone_mode=False) or Exit.OK)
    except click.Abort:  # Ctrl-C
        return Exit.INTERRUPTED
    except TimeLimitReached as error:
        if message := str(error):
            click.echo(f"Error: {message}", err=True)
        return Exit.TIMED_OUT
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except ClientError as error:
        click.echo(f"Error: {printable(str(error))}", err=True)
        return exit_code(error)
    except UnicodeError:
        click.echo("Error: the text is not UTF-8.", err=True)
        return Exit.USAGE
    except OSError as error:  # from the file with the login
        click.echo(f"Error: {error}", err=True)
        return Exit.USAGE
    except Exception:  # Python would exit with 1, which says that a prompt has failed
        traceback.print_exc()
        return Exit.FAULT


if __name__ == "__main__":
    sys.exit(run())
