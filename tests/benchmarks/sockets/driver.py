"""The operations on an API process with many sockets, and their measurements."""

import http.client
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import psutil
from redis import Redis
from sqlalchemy import select, update

from api.realtime.relay import MAX_CHECKED_USERS
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import User
from shared.messaging import announcements
from shared.messaging.announcements import Announcement
from shared.messaging.channels import Channels
from shared.messaging.redis import make_redis
from shared.prompts import feed, submission
from shared.prompts.submission import NewPrompt
from shared.settings import Settings
from tests.benchmarks.cpu import Cpu, of_families, server_pid
from tests.support.many_sockets import Clients, Received
from tests.support.people import Person
from tests.support.servers import Servers
from worker.services import make_services

_ANSWER = "You asked “What is a tide?”. That is a good question. A real model would answer it here. " * 4
_CONCURRENT_JOINS = 200  # sockets that join simultaneously


@dataclass
class Driver:
    """One API process, its sockets, and their users."""

    servers: Servers
    settings: Settings
    url: str
    host: int  #: the process id of gunicorn's master
    people: Sequence[Person]
    clients: Clients
    per_user: int = 0

    def __post_init__(self) -> None:
        self.redis: Redis = make_redis(self.settings)
        self.channels = Channels(self.redis)
        engine = make_engine(self.settings, application_name="benchmark")
        self.sessions: Sessions = make_sessions(engine)
        self.cpu: Cpu = of_families([self.host], and_this=False)
        (self.prompt_id,) = self._submit(self.people[:1])  #: the first user's prompt, polled and never answered
        headers = {"Authorization": f"Bearer {self.people[0].token}"}
        httpx.post(f"{self.url}/prompts/{self.prompt_id}/cancel/", headers=headers).raise_for_status()

    @property
    def sockets(self) -> int:
        return self.per_user * len(self.people)

    def resident(self) -> int:
        """Return the resident bytes of gunicorn's worker; the master serves no requests and does not grow."""
        (worker,) = psutil.Process(self.host).children()
        resident: int = worker.memory_info().rss
        return resident

    def join(self, per_user: int) -> dict[str, Any]:
        """Open `per_user` sockets for every user."""
        postgres = of_families([server_pid(self.servers)], and_this=False)
        self.clients.open(self.url, self.people[:1] * 50, at_once=10)  # warm-up
        self.clients.leave()
        time.sleep(1)
        before, cpu, postgres_cpu = self.resident(), self.cpu(), postgres()
        rooms = [person for person in self.people for _ in range(per_user)]
        random.Random(1).shuffle(rooms)
        opened = self.clients.open(self.url, rooms, at_once=_CONCURRENT_JOINS)
        cpu, postgres_cpu = self.cpu() - cpu, postgres() - postgres_cpu
        time.sleep(3)
        self.per_user = per_user
        return {
            "sockets": self.sockets,
            "resident_before_mb": round(before / 1e6),
            "resident_mb": round(self.resident() / 1e6),
            "kb_a_socket": round((self.resident() - before) / 1024 / self.sockets, 1),
            "join_s": round(opened.seconds, 1),
            "join_p50_ms": _ms(opened.each, 0.5),
            "join_p99_ms": _ms(opened.each, 0.99),
            "join_api_us": round(cpu / self.sockets * 1e6),
            "join_postgres_us": round(postgres_cpu / self.sockets * 1e6),
        }

    def finish_prompts(self, max_prompts: int) -> dict[str, Any]:
        """Answer one prompt of each user, of at most `max_prompts`, by a worker's pipeline in this process."""
        pipeline = make_services(self.settings).pipeline
        submitters = self.people[:max_prompts]
        started = time.monotonic()
        for start in range(0, len(submitters), pipeline.generator.max_batch_size):
            pipeline.process(len(self._submit(submitters[start : start + pipeline.generator.max_batch_size])))
        expected = len(submitters) * self.per_user
        received = self.clients.received(expected, timeout=60)
        return {"prompts": len(submitters), "seconds": round(time.monotonic() - started, 1)} | _delivered(
            received, expected
        )

    def all_users(self) -> dict[str, Any]:
        """Publish an event of every user simultaneously. Measure the sockets' latency and the API's CPU per socket."""
        announced = self._announcements(self.people)
        cpu = self.cpu()
        started = time.monotonic()
        self._publish(announced)
        received = self.clients.received(self.sockets, timeout=60)
        cpu = self.cpu() - cpu
        return {
            "events": len(self.people),
            "median_socket_ms": round((float(np.median(received.times)) - started) * 1e3, 1),
            "last_socket_ms": round((received.times[-1] - started) * 1e3, 1),
            "api_us_a_socket": round(cpu / self.sockets * 1e6, 1),
        } | _delivered(received, self.sockets)

    def one_user(self, times: int) -> dict[str, Any]:
        """Publish `times` events of one user, one after the other. Measure how long all their sockets take."""
        taken = []
        for _ in range(times):
            announced = self._announcements(self.people[:1])
            started = time.monotonic()
            self._publish(announced)
            taken.append(self.clients.received(self.per_user, timeout=10).times[-1] - started)
        return {"events": times, "last_socket_p50_ms": _ms(taken, 0.5)}

    def paced(self, seconds: float, per_second: float, meanwhile: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Publish `per_second` events of random users while `meanwhile` measures something else."""
        published: list[float] = []
        over = threading.Event()

        def publish() -> None:
            rng = random.Random(2)
            while not over.wait(1 / per_second):
                announced = self._announcements([rng.choice(self.people)])
                published.append(time.monotonic())
                self._publish(announced)

        thread = threading.Thread(target=publish)
        thread.start()
        cpu, started = self.cpu(), time.monotonic()
        found = meanwhile()
        time.sleep(max(0.0, seconds - (time.monotonic() - started)))
        over.set()
        thread.join()
        cpu = (self.cpu() - cpu) / (time.monotonic() - started)
        received = self.clients.received(len(published) * self.per_user, timeout=10)
        last = received.times[self.per_user - 1 :: self.per_user]
        taken = [there - here for here, there in zip(published, last, strict=False)]
        return found | {
            "push_p50_ms": _ms(taken, 0.5),
            "push_p99_ms": _ms(taken, 0.99),
            "api_cpu_percent": round(cpu * 100, 1),
        }

    def requests(self, calls: int) -> dict[str, Any]:
        """Measure requests, one after the other, on a keep-alive connection."""
        person = self.people[0]
        headers = {"Authorization": f"Bearer {person.token}"}
        url = httpx.URL(self.url)
        connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=60)
        found: dict[str, Any] = {}
        for name, path in {"livez": "/livez/", "poll": f"/prompts/{self.prompt_id}/"}.items():
            taken, cpu = [], self.cpu()
            for _ in range(calls):
                started = time.perf_counter()
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                response.read()
                taken.append(time.perf_counter() - started)
                assert response.status == 200, response.status
                time.sleep(0.002)
            found |= {f"{name}_p50_ms": _ms(taken, 0.5), f"{name}_p99_ms": _ms(taken, 0.99)}
            found |= {f"{name}_api_us": round((self.cpu() - cpu) / calls * 1e6)}
        connection.close()
        return found

    def feed_check(self) -> dict[str, Any]:
        """Run the relay's poll of the feeds of all its rooms. Measure the CPU in total and of the longest batch."""
        with self.sessions() as session:
            rooms = list(session.execute(select(User.id, User.seq)).tuples())
        parts = []
        for start in range(0, len(rooms), MAX_CHECKED_USERS):
            started = time.process_time()
            known = dict(rooms[start : start + MAX_CHECKED_USERS])
            with self.sessions() as session:
                feed.changed(session, known)
            parts.append(time.process_time() - started)
        return {"rooms": len(rooms), "check_ms": round(sum(parts) * 1e3, 1), "longest_ms": round(max(parts) * 1e3, 1)}

    def _submit(self, people: Sequence[Person]) -> list[int]:
        """Store a prompt of each user without queueing it."""
        new_prompts = [NewPrompt(person.id, "What is a tide?", websocket=True, request_id="r") for person in people]
        with self.sessions.begin() as session:
            stored = submission.submit(session, new_prompts, grace=timedelta(hours=1), attempt_limit=5)
        return [prompt.id for prompt in stored]

    def _publish(self, announced: Mapping[int, str]) -> None:
        with self.redis.pipeline(transaction=False) as pipe:
            for user_id, announcement in announced.items():
                pipe.publish(self.channels.of_user(user_id), announcement)
            pipe.execute()

    def _announcements(self, people: Sequence[Person]) -> dict[int, str]:
        """The announcement of a completed prompt for each user. It takes the next number of the user's feed.

        The number is stored: that of a room that is higher than the stored one would be a restored database's.
        """
        names = {person.id: person.username for person in people}
        step = update(User).where(User.id.in_(names)).values(seq=User.seq + 1).returning(User.id, User.seq)
        with self.sessions.begin() as session:
            return {user_id: _announcement(names[user_id], seq) for user_id, seq in session.execute(step)}


def _announcement(username: str, seq: int) -> str:
    message = {
        "type": "prompt.completed",
        "seq": seq,
        "id": seq,
        "user": username,
        "prompt_text": "What is a tide?",
        "response_text": _ANSWER,
        "status": "completed",
    }
    return Announcement(seq, seq, 1, announcements.to_json(message)).encode()


def _delivered(received: Received, expected: int) -> dict[str, int]:
    """Count the deliveries. Every socket should get each event once."""
    return {
        "expected": expected,
        "received": len(received.times),
        "sockets_reached": received.sockets,
        "closed": received.closed,
    }


def _ms(taken: Sequence[float], quantile: float) -> float:
    return round(float(np.quantile(taken, quantile)) * 1e3, 2)
