"""Showing prompts, and their answers once they have finished or as they are generated."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from .client import Client
from .options import Exit, Options
from .output import Output, answer_text, cut_off_note, local_time, one_line, waiting_reason
from .progress import progress_line
from .resources import Prompt
from .time_limit import TimeLimitReached


def show_list(output: Output, prompts: Iterable[Prompt]) -> None:
    """Show the prompts, and on stderr why those wait that wait for the model."""
    reasons: dict[str, None] = {}

    def row(prompt: Prompt) -> Sequence[str]:
        if reason := waiting_reason(prompt):
            reasons[reason] = None
        return (
            str(prompt["id"]),
            _list_status(prompt),
            local_time(prompt["created_at"]),
            one_line(prompt["prompt_text"]),
        )

    output.results(prompts, ("ID", "STATUS", "SUBMITTED", "PROMPT"), row)
    for reason in reasons:
        output.note(f"Queued prompts wait for the model: {reason}")


def _list_status(prompt: Prompt) -> str:
    """The status, and whether the answer is not complete."""
    reason = prompt.get("finish_reason")
    return f"{prompt['status']} ({reason})" if cut_off_note(reason) else prompt["status"]


def show_answer(
    options: Options,
    client: Client,
    request: Callable[[], Prompt],
    wait: bool,
    follow: bool,
    describe: Callable[[Prompt], str],
) -> Exit:
    """Show the prompt that `request` returns, or its answer: once it has finished, or as it is generated."""
    output = options.output
    with output.progress("Sending the request …"):
        prompt = request()
    if not wait and not follow:
        output.result(prompt, describe(prompt))
        return Exit.OK
    try:
        with options.time_limit():
            return _follow(output, client, prompt) if follow else _wait(output, client, prompt)
    except (KeyboardInterrupt, TimeLimitReached):
        way = "--follow" if follow else "--wait"
        output.note(f"Prompt {prompt['id']} has not ended: `promptwire show {prompt['id']} {way}` waits for it again.")
        raise


def _wait(output: Output, client: Client, prompt: Prompt) -> Exit:
    with progress_line(output, prompt, partial(client.show, retry=False)):
        prompt = client.wait(prompt["id"])
    if output.as_json:
        output.result(prompt, "")
    elif prompt["status"] == "completed":
        output.result(prompt, answer_text(prompt))
    return _exit(output, prompt["id"], prompt["status"], prompt["error"], prompt.get("finish_reason"))


def _follow(output: Output, client: Client, prompt: Prompt) -> Exit:
    attempt: int | None = None
    with progress_line(output, prompt, partial(client.show, retry=False)) as stop_progress:
        for event in client.follow(prompt["id"]):
            stop_progress()
            if output.as_json:
                output.result(event, "")
            elif event["type"] == "prompt.delta":
                if attempt is not None and attempt != event["attempt"]:
                    output.text("\n")
                    output.note("The answer was interrupted and restarts.")
                attempt = event["attempt"]
                output.text(event["text"])
    if attempt is not None:
        output.text("\n")
    if event.get("tool_calls") and not output.as_json:
        output.text(answer_text({"type": event["type"], "tool_calls": event["tool_calls"]}) + "\n")
    outcome = event["type"].removeprefix("prompt.")
    return _exit(output, event["id"], outcome, event.get("error"), event.get("finish_reason"))


def _exit(output: Output, prompt_id: int, outcome: str, error: str | None, finish_reason: str | None) -> Exit:
    """Explain on stderr what the answer on stdout does not say. Returns the exit code."""
    if outcome == "completed":
        if note := cut_off_note(finish_reason):
            output.note(f"The answer to prompt {prompt_id} is not complete: {note[0].lower()}{note[1:]}")
        return Exit.OK
    output.note(
        f"Prompt {prompt_id} {'failed' if outcome == 'failed' else f'was {outcome}'}.{f' {error}' if error else ''}"
    )
    return Exit.REFUSED if outcome == "deleted" else Exit.FAILED
