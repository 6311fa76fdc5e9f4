"""An example of each command, which its `--help` shows."""

import click

_EXAMPLES: dict[str, tuple[str, ...]] = {
    "login": ("promptwire login alice", "promptwire login --credentials alice.json"),
    "logout": ("promptwire logout",),
    "register": ("promptwire register alice",),
    "submit": (
        'promptwire submit --follow "Explain what causes ocean tides"',
        "promptwire submit --wait --timeout 60 - < question.txt",
        'promptwire submit --priority low --metadata customer=42 "Summarise the day"',
    ),
    "show": ("promptwire show 7", "promptwire show 7 --wait"),
    "retry": ("promptwire retry 7 --follow",),
    "cancel": ("promptwire cancel 7",),
    "delete": ("promptwire delete 7",),
    "list": ("promptwire list --status failed --since 2026-11-01T00:00:00Z", "promptwire list --all --json"),
    "search": (
        'promptwire search "tides of the ocean"',
        "promptwire search ERR_2041 --mode text --metadata customer=42",
    ),
    "similar": ('promptwire similar "tides of the ocean"',),
    "usage": ("promptwire usage --by model --since 2026-11-01",),
    "models": ("promptwire models",),
    "listen": ("promptwire listen", "promptwire listen --since 41 --json"),
    "export": ("promptwire export --output prompts.jsonl",),
    "completion": (
        "promptwire completion bash > ~/.local/share/bash-completion/completions/promptwire",
        "promptwire completion zsh > ~/.zfunc/_promptwire",
        "promptwire completion fish > ~/.config/fish/completions/promptwire.fish",
    ),
    "help": ("promptwire help", "promptwire help batch submit"),
    "keys create": ('promptwire keys create "nightly report" --scope prompts:read --expires-at 2027-01-31T12:00:00Z',),
    "keys list": ("promptwire keys list",),
    "keys revoke": ("promptwire keys revoke 3",),
    "batch submit": ("promptwire batch submit requests.jsonl --wait",),
    "batch show": ("promptwire batch show batch_12",),
    "batch list": ("promptwire batch list --limit 5",),
    "batch wait": ("promptwire batch wait batch_12 --timeout 3600",),
    "batch cancel": ("promptwire batch cancel batch_12",),
    "batch download": (
        "promptwire batch download batch_12 answers.jsonl",
        "promptwire batch download batch_12 errors.jsonl --errors",
    ),
    "files list": ("promptwire files list",),
    "files download": ("promptwire files download file-12 requests.jsonl",),
    "files delete": ("promptwire files delete file-12",),
    "account show": ("promptwire account show",),
    "account password": ("promptwire account password",),
    "account logins": ("promptwire account logins",),
    "account export": ("promptwire account export --output prompts.jsonl",),
    "account delete": ("promptwire account delete",),
    "webhooks create": ("promptwire webhooks create https://example.com/hook --event prompt.completed",),
    "webhooks list": ("promptwire webhooks list",),
    "webhooks show": ("promptwire webhooks show 3",),
    "webhooks update": ("promptwire webhooks update 3 --disable",),
    "webhooks delete": ("promptwire webhooks delete 3",),
    "webhooks rotate": ("promptwire webhooks rotate 3",),
    "webhooks test": ("promptwire webhooks test 3",),
    "webhooks deliveries": ("promptwire webhooks deliveries 3 --status failed",),
    "webhooks replay": ("promptwire webhooks replay 3 120",),
    "webhooks recover": ("promptwire webhooks recover 3 --since 41",),
    "admin overview": ("promptwire admin overview",),
    "admin running": ("promptwire admin running --json",),
    "admin failures": ("promptwire admin failures --since 2026-11-30T00:00:00Z",),
    "admin workers": ("promptwire admin workers",),
    "admin models": ("promptwire admin models",),
    "admin pause": ('promptwire admin pause default --reason "The provider is being upgraded"',),
    "admin resume": ("promptwire admin resume default",),
    "admin retry": (
        "promptwire admin retry --status failed --since 2026-11-30T00:00:00Z --dry-run",
        "promptwire admin retry --batch batch_12 --yes",
    ),
    "admin cancel": ("promptwire admin cancel --user alice",),
    "admin operations": ("promptwire admin operations --limit 5",),
    "admin operation": ("promptwire admin operation 3 --wait",),
    "admin undo": ("promptwire admin undo 3",),
    "admin users": ("promptwire admin users --name ali",),
    "admin keys": ("promptwire admin keys --user alice", "promptwire admin keys --revoke 7"),
    "admin usage": ("promptwire admin usage --by model --since 2026-11-01",),
    "admin audit": ("promptwire admin audit --user alice",),
}


def add_examples(group: click.Group, prefix: str = "") -> None:
    """Add their examples to the help of all commands of a group."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            add_examples(command, f"{prefix}{name} ")
        elif lines := _EXAMPLES.get(prefix + name):
            command.epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
