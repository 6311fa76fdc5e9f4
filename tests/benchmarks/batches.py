"""Batches of 10,000 and 50,000 lines through a real stack: how fast lines are stored and answered, how much memory the
API takes for them, and how long a lone interactive prompt takes before and meanwhile, about ten times a second:
`make benchmark NAME=batches`.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from sqlalchemy import text

from api.client import Client
from shared.db.engine import make_engine
from shared.settings import Settings
from tests.benchmarks import published
from tests.support.client import PASSWORD
from tests.support.processes import api, worker
from tests.support.servers import Servers

LINES = (10_000, 50_000)
LONE_PROMPTS = 50
#: Between lone prompts. Without it they would be a second load: each takes as much computing as about 20 lines.
PAUSE_SECONDS = 0.1
_SETTINGS = {"prompt_rate_limit": "1000000/second", "log_level": "WARNING", "max_file_bytes": 300 * 1024 * 1024}
_TIMES = text("""
    SELECT in_progress_at, (SELECT max(created_at) FROM prompts WHERE batch_id = batches.id) AS stored_at,
        (SELECT max(completed_at) FROM prompts WHERE batch_id = batches.id) AS answered_at, created_at, completed_at
    FROM batches
    ORDER BY id DESC LIMIT 1
""")


def main() -> None:
    arguments = published.parser(__doc__).parse_args()
    figures = {}
    servers = Servers("benchmark", options=())
    servers.start()
    try:
        for lines in LINES:
            with servers.database() as name, tempfile.TemporaryDirectory() as folder:
                settings = servers.settings(name, **_SETTINGS)
                with api(settings) as url, worker(settings):
                    figures[str(lines)] = measure(url, settings, Path(folder), lines)
    finally:
        servers.stop()
    if arguments.write:
        published.write("batches", figures)


def measure(url: str, settings: Settings, folder: Path, lines: int) -> dict[str, float]:
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}")
    with Client(url) as client:
        client.register("alice", PASSWORD)
        client.login("alice", PASSWORD)
        lone(client, 20)  # warms up
        before = lone(client, LONE_PROMPTS)
        memory = api_memory()
        file = write(folder / "lines.jsonl", lines)
        uploaded = client.batches.upload(file)
        batch = client.batches.create(uploaded["id"])
        while client.batches.show(batch["id"])["status"] == "validating":
            time.sleep(0.05)
        during = [lone(client, 1)[0]]
        peak = memory
        while client.batches.show(batch["id"])["status"] == "in_progress":
            during += lone(client, 2)
            peak = max(peak, api_memory())
        ended = client.batches.wait(batch["id"])
        size = sum(len(part) for part in client.batches.content(str(ended["output_file_id"])))
        peak = max(peak, api_memory())
    with make_engine(settings, application_name="benchmark").connect() as connection:
        times = connection.execute(_TIMES).one()
    stored = (times.stored_at - times.in_progress_at).total_seconds()
    answered = (times.answered_at - times.in_progress_at).total_seconds()
    print(f"{ended['status']}: {ended['request_counts']}, output of {size:,} bytes")
    print(f"validated in {(times.in_progress_at - times.created_at).total_seconds():.2f} s")
    print(f"stored: {lines / stored:,.0f} lines/s ({stored:.2f} s)")
    print(f"completed: {lines / answered:,.0f} lines/s ({answered:.2f} s)")
    print(f"files readable after {(times.completed_at - times.answered_at).total_seconds():.2f} s more")
    print(f"API memory: {memory / 2**20:.0f} MiB before, at most {(peak - memory) / 2**20:+.0f} MiB")
    ms = [1000 * statistics.median(each) for each in (before, during)]
    print(f"a lone prompt, p50: {ms[0]:.1f} ms before, {ms[1]:.1f} ms meanwhile ({len(during)} prompts)")
    return {
        "stored_per_second": round(lines / stored),
        "answered_per_second": round(lines / answered),
        "lone_ms_before": round(ms[0], 1),
        "lone_ms_meanwhile": round(ms[1], 1),
        "memory_mib": round((peak - memory) / 2**20),
    }


def lone(client: Client, count: int) -> list[float]:
    """How long it takes, in seconds, to submit a prompt and get its answer: of each."""
    taken = []
    for number in range(count):
        started = time.perf_counter()
        client.submit(f"How high is the tide at {number}?", wait=True)
        taken.append(time.perf_counter() - started)
        time.sleep(PAUSE_SECONDS)
    return taken


def write(file: Path, lines: int) -> Path:
    """Write a file of chat completions."""
    with file.open("w") as output:
        for number in range(lines):
            messages = [{"role": "user", "content": f"Question {number}: what is a tide of {number} metres?"}]
            body = {"model": "default", "messages": messages}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            output.write(json.dumps(line) + "\n")
    return file


def api_memory() -> int:
    """The bytes of memory of the API's processes."""
    children = psutil.Process().children(recursive=True)
    return sum(each.memory_info().rss for each in children if "gunicorn" in " ".join(each.cmdline()))


if __name__ == "__main__":
    main()
