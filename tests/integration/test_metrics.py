"""The metrics: their values, who may read them, and whether the dashboard, the alerts and the table match them."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from pydantic import SecretStr
from sqlalchemy import event, text

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE
from shared.errors import ProviderOverloadedError, ProviderUnavailableError
from shared.messaging.redis import make_redis
from shared.settings import Settings
from shared.telemetry import exposition, metrics, service_metrics
from shared.telemetry.service_metrics import ServiceMetrics
from tests.support import batches, lifecycle
from tests.support.client import ApiUser, assert_problem
from tests.support.metrics import samples
from tests.support.providers import Commanded, Counting, Script
from tests.support.servers import MAX_WAIT_SECONDS, ROOT
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline


def read(app: Flask) -> dict[str, float]:
    return samples(app.test_client().get("/metrics").text)


@pytest.fixture
def grown(app: Flask):
    """Return a function: how much a sample has grown since the test's start."""
    before = read(app)
    return lambda name: read(app).get(name, 0) - before.get(name, 0)


class TestValues:
    def test_requests_are_counted_by_route_method_and_status_class(self, alice: ApiUser, grown) -> None:
        alice.show(alice.submit())
        alice.get("/prompts/999/")
        alice.get("/nowhere/")
        alice.call("BREW", "/prompts/")
        name = "promptwire_http_request_duration_seconds_count"
        shown = f'{name}{{method="GET",route="/prompts/{{prompt_id}}/",status='
        assert (grown(f'{shown}"2xx"}}'), grown(f'{shown}"4xx"}}')) == (1, 1)
        assert grown(f'{name}{{method="POST",route="/prompts/",status="2xx"}}') == 1
        assert grown(f'{name}{{method="GET",route="other",status="4xx"}}') == 1
        assert grown(f'{name}{{method="other",route="other",status="4xx"}}') == 1

    def test_the_wait_that_a_request_asked_for_is_not_part_of_its_duration(self, alice: ApiUser, grown) -> None:
        prompt_id = alice.submit()
        alice.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=1"})
        labels = 'method="GET",route="/prompts/{prompt_id}/",status="2xx"'
        assert grown(f"promptwire_http_request_duration_seconds_count{{{labels}}}") == 1
        assert grown(f"promptwire_http_request_duration_seconds_sum{{{labels}}}") < 1

    def test_rate_limited_requests_are_counted_by_route_and_limit(self, make_app, grown) -> None:
        limited, _ = make_app(prompt_rate_limit="1/minute")
        carol = ApiUser(limited, "carol")
        carol.submit()
        assert carol.post("/prompts/", json={"prompt_text": "again"}).status_code == 429
        assert grown('promptwire_rate_limited_total{limit="1 per 1 minute",route="/prompts/"}') == 1

    def test_overload_refusals_are_counted_wherever_they_are_made(self, make_app, grown) -> None:
        full, _ = make_app(backlog_limit=1)
        carol = ApiUser(full, "carol")
        carol.submit()
        for _ in range(2):  # the second by the load shedder
            assert carol.post("/prompts/", json={"prompt_text": "again"}).status_code == 503
        assert grown("promptwire_overload_refusals_total") == 2

    def test_each_step_of_a_prompt_is_counted(self, alice: ApiUser, worker: Pipeline, grown) -> None:
        answering = replace(worker, generator=Counting())
        alice.submit("tides")
        gone = alice.submit("rivers")
        alice.post(f"/prompts/{gone}/cancel/")
        answering.process(2)
        alice.get("/prompts/similar/?prompt=tides")
        for name, by in {
            "prompts_submitted_total": 2,
            'prompts_finished_total{status="completed"}': 1,
            'prompts_finished_total{status="cancelled"}': 1,
            "attempts_total": 1,
            "generation_duration_seconds_count": 1,
            "generation_first_chunk_seconds_count": 1,
            "embedding_duration_seconds_count": 2,
            "search_duration_seconds_count": 1,
            'tokens_total{kind="prompt"}': 10,
            'tokens_total{kind="completion"}': 1,
        }.items():
            assert grown(f"promptwire_{name}") == by, name

    def test_cache_requests_are_counted_by_result(self, alice: ApiUser, worker: Pipeline, grown) -> None:
        def submit(headers: dict[str, str] | None = None, **fields: object) -> int:
            return alice.post("/prompts/", json={"prompt_text": "tides"} | fields, headers=headers).json["id"]

        no_cache = {"Cache-Control": "no-cache"}
        for fields in ({"cache": True}, {"cache": True}, {"cache": True, "headers": no_cache}, {"history": 1}, {}):
            submit(**({"cache": True} if "history" in fields else {}), **fields)
            worker.process(1)
        results = {name: grown(f'promptwire_cache_requests_total{{result="{name}"}}') for name in ("miss", "hit")}
        assert results == {"miss": 1, "hit": 1}
        assert grown('promptwire_cache_requests_total{result="request"}') == 1
        assert grown('promptwire_cache_requests_total{result="bypass"}') == 1

    @pytest.mark.parametrize(("command", "reason"), [("fail", "provider"), ("fail-until /nowhere", "other")])
    def test_failed_attempts_are_counted_by_reason(
        self, alice: ApiUser, worker: Pipeline, grown, command: str, reason: str
    ) -> None:
        alice.submit(command)
        replace(worker, generator=Commanded(), retry_backoff=timedelta()).process(1)
        assert grown(f'promptwire_attempts_failed_total{{reason="{reason}"}}') == 1

    def test_prompts_that_the_reaper_rescues_are_counted_by_kind(
        self, alice: ApiUser, settings: Settings, sessions: Sessions, services, grown
    ) -> None:
        changes = [
            "status = 'processing', attempt = 1",
            "turn = NULL, attempt = 1, not_before = now()",
            "status = 'processing', attempt = attempt_limit",
        ]
        with sessions.begin() as session:
            for change in changes:
                prompt_id = alice.submit()
                session.execute(text(f"UPDATE prompts SET due_at = now(), {change} WHERE id = {prompt_id}"))  # noqa: S608
        reaper = Reaper(settings, sessions, services.queue, services.announcer)
        reaper.round()
        with make_redis(settings) as redis:
            redis.flushall()
        reaper.round()
        for kind, count in (("lapsed", 1), ("paused", 1), ("lost", 2)):
            assert grown(f'promptwire_reaper_rescues_total{{kind="{kind}"}}') == count, kind
        assert grown("promptwire_prompts_given_up_total") == 1
        assert grown('promptwire_prompts_finished_total{status="failed"}') == 1

    def test_a_lost_claim_is_counted(self, alice: ApiUser, worker: Pipeline, grown) -> None:
        class Cancelling(Counting):
            def generate(self, request):
                alice.post(f"/prompts/{prompt_id}/cancel/")
                yield "too late"

        prompt_id = alice.submit()
        replace(worker, generator=Cancelling()).process(1)
        assert grown("promptwire_claims_lost_total") == 1

    def test_the_service_metrics_show_the_queue_and_the_age_of_its_oldest_prompt(
        self, alice: ApiUser, services, sessions: Sessions
    ) -> None:
        alice.submit()
        alice.submit()
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET queued_at = now() - interval '1 h'"))
        seen = samples(exposition.render("", ServiceMetrics(services.autocommit_engine, services.queue)).body.decode())
        assert seen['promptwire_prompts{status="queued"}'] == 2
        assert seen['promptwire_prompts{status="processing"}'] == 0
        assert seen["promptwire_queue_depth"] == 2
        assert 3_600 <= seen["promptwire_oldest_queued_seconds"] < 3_700

    def test_the_service_metrics_count_unfinished_batches_by_status(
        self, alice: ApiUser, services, sessions: Sessions
    ) -> None:
        for _ in range(3):
            batches.create(alice, [batches.line(1)])
        with sessions.begin() as session:
            session.execute(text("UPDATE batches SET status = 'in_progress' WHERE id = (SELECT min(id) FROM batches)"))
            session.execute(
                text("UPDATE batches SET status = 'completed', due_at = NULL WHERE id = (SELECT max(id) FROM batches)")
            )
        seen = samples(exposition.render("", ServiceMetrics(services.autocommit_engine, services.queue)).body.decode())
        statuses = ("validating", "in_progress", "finalizing", "cancelling")
        assert [seen[f'promptwire_batches{{status="{each}"}}'] for each in statuses] == [1, 1, 0, 0]
        assert 'promptwire_batches{status="completed"}' not in seen

    def test_prompts_that_wait_for_their_provider_are_counted_until_it_answers(
        self, alice: ApiUser, worker: Pipeline, services, sessions: Sessions, grown
    ) -> None:
        def seen() -> tuple[float, float]:
            figures = ServiceMetrics(services.autocommit_engine, services.queue)
            values = samples(exposition.render("", figures).body.decode())
            waiting = values["promptwire_prompts_waiting_for_provider"]
            return values.get('promptwire_provider_paused{route="default"}', 0), waiting

        def pauses() -> list[float]:
            name = "promptwire_provider_pauses_total"
            return [grown(f'{name}{{cause="{cause}"}}') for cause in ("unavailable", "overloaded")]

        alice.submit()
        alice.submit()
        assert (seen(), pauses()) == ((0, 0), [0, 0])
        for error, counted in (
            (ProviderUnavailableError("no"), [1, 0]),
            (ProviderOverloadedError("no"), [1, 1]),
        ):
            replace(worker, generator=Script(error)).process(1)
            assert (seen(), pauses()) == ((1, 2), counted)
            with sessions.begin() as session:
                session.execute(text("UPDATE routes SET paused_until = now()"))
        worker.process(1)
        assert seen() == (0, 0)

    @pytest.mark.parametrize(("reduced_to", "shown"), [(None, 8), (5.9, 5), (20, 8)])
    def test_the_service_metrics_show_how_many_prompts_a_route_answers_and_its_limit(
        self, alice: ApiUser, services, sessions: Sessions, reduced_to: float | None, shown: int
    ) -> None:
        def seen(ceiling: int | None) -> dict[str, float]:
            service = ServiceMetrics(services.autocommit_engine, services.queue, ceilings={DEFAULT_ROUTE: ceiling})
            return samples(exposition.render("", service).body.decode())

        alice.submit()
        assert seen(None)['promptwire_route_running{route="default"}'] == 0
        assert 'promptwire_route_concurrency{route="default"}' not in seen(None)
        with sessions.begin() as session:
            lifecycle.claim_any(session)
            session.execute(text("UPDATE routes SET concurrency = :reduced_to"), {"reduced_to": reduced_to})
        assert seen(8)['promptwire_route_running{route="default"}'] == 1
        assert seen(8)['promptwire_route_concurrency{route="default"}'] == shown


class TestBuffers:
    def test_a_buffered_histogram_has_the_same_values_as_a_plain_one(self) -> None:
        from prometheus_client import CollectorRegistry, Histogram

        buffered, plain = (Histogram("seconds", "", buckets=(0.1, 1.0), registry=CollectorRegistry()) for _ in range(2))
        times = metrics.BufferedHistogram(buffered)
        for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
            times.observe(seconds)
            plain.observe(seconds)
        times.flush()
        times.flush()

        def values(histogram: Histogram) -> dict:
            (family,) = histogram.collect()
            return {(s.name, *s.labels.values()): s.value for s in family.samples if not s.name.endswith("_created")}

        assert values(buffered) == values(plain)

    def test_a_full_buffer_is_written_before_the_second_ends(self) -> None:
        counter = metrics.BufferedCounter(metrics.Counter("much", "", registry=metrics.CollectorRegistry()))
        for _ in range(metrics._MAX_BUFFERED):
            counter.inc()
        assert not counter._buffer


class TestCost:
    def test_repeated_reads_within_the_interval_query_postgres_once(self, services) -> None:
        statements = []
        event.listen(services.autocommit_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        cached = ServiceMetrics(services.autocommit_engine, services.queue, cache_seconds=3_600)
        for _ in range(5):
            assert "promptwire_prompts" in exposition.render("", cached).body.decode()
        assert len([each for each in statements if "min(queued_at)" in each]) == 1

    def test_unfinished_prompts_are_found_by_their_index(self, sessions: Sessions) -> None:
        with sessions() as session:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = "\n".join(session.scalars(text(f"EXPLAIN {service_metrics._UNFINISHED.text}"), {"most": 10}))
        assert "prompts_due" in plan


class TestAccess:
    def status(self, app: Flask, address: str = "127.0.0.1", token: str | None = None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return app.test_client().get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address})

    @pytest.mark.parametrize(
        ("address", "status"),
        [("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 200), ("192.168.0.7", 200), ("8.8.8.8", 403), ("", 403)],
    )
    def test_without_a_configured_token_only_private_addresses_may_read(
        self, app: Flask, address: str, status: int
    ) -> None:
        assert self.status(app, address).status_code == status

    def test_in_production_without_a_configured_token_nobody_may_read(self, make_app) -> None:
        app, _ = make_app(app_env="prod")
        assert "METRICS_TOKEN" in assert_problem(self.status(app), 403)["detail"]

    @pytest.mark.parametrize("app_env", ["dev", "prod"])
    def test_with_a_configured_token_its_bearer_may_read_from_any_address(self, make_app, app_env: str) -> None:
        app, _ = make_app(app_env=app_env, metrics_token=SecretStr("let-me-see"))
        assert self.status(app, "8.8.8.8", "let-me-see").status_code == 200
        for wrong in (None, "", "let-me-see-more", "lét-me-see"):
            response = self.status(app, "127.0.0.1", wrong)
            assert_problem(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"

    def test_openmetrics_is_served_when_the_accept_header_asks_for_it(self, app: Flask) -> None:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        response = app.test_client().get("/metrics", headers=accept)
        assert response.content_type.startswith("application/openmetrics-text")
        assert response.text.endswith("# EOF\n")


DASHBOARD = ROOT / "infra/monitoring/grafana" / "dashboard.json"
PROMETHEUS = ROOT / "infra/monitoring/prometheus"
OURS = re.compile(r"\bpromptwire_[a-z_]+")


class TestReferences:
    @pytest.fixture
    def families(self, app: Flask) -> dict[str, str]:
        """Map the name of each metric, as used in queries, to its kind; a histogram's name has no suffix."""
        kinds = dict(re.findall(r"^# TYPE (promptwire_\w+) (\w+)$", app.test_client().get("/metrics").text, re.M))
        return {name: kind for name, kind in kinds.items() if not name.endswith("_created")}

    def assert_known(self, used: set[str], families: dict[str, str]) -> None:
        parts = {f"{name}_{part}" for name, kind in families.items() if kind == "histogram"
                 for part in ("bucket", "count", "sum")}  # fmt: skip
        plain = {name for name, kind in families.items() if kind != "histogram"}
        assert used <= parts | plain, used - parts - plain

    def test_the_table_lists_every_metric_with_its_kind_and_labels(self, families: dict[str, str]) -> None:
        table = (ROOT / "docs" / "observability.md").read_text()
        rows = re.findall(r"^\| `(promptwire_\w+)` \| (\w+) \| ([^|]*)\|", table, re.MULTILINE)
        assert {name: kind for name, kind, _ in rows} == families
        labels = {name: set(re.findall(r"`(\w+)`(?=[:, (]|$)", said.strip())) for name, _, said in rows}
        for metric in metrics.REGISTRY._collector_to_names:
            name = metric._name + ("_total" if metric._type == "counter" else "")
            assert set(metric._labelnames) <= labels[name], name

    def test_the_dashboard_uses_only_existing_metrics(self, families: dict[str, str]) -> None:
        self.assert_known(set(OURS.findall(DASHBOARD.read_text())), families)

    def test_the_alerts_use_only_existing_metrics(self, families: dict[str, str]) -> None:
        rules = (PROMETHEUS / "alerts.yml").read_text()
        self.assert_known(set(re.findall(r"\bpromptwire_[a-z_]+_(?:total|bucket|count|sum)\b", rules)), families)
        named = {re.sub(r"_(bucket|count|sum)$", "", name) for name in OURS.findall(rules)}
        assert named <= families.keys()

    def test_every_panel_has_a_description_and_a_unit(self) -> None:
        dashboard = json.loads(DASHBOARD.read_text())
        assert [v["type"] for v in dashboard["templating"]["list"]] == ["datasource"]
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len(panels) > 15
        for panel in panels:
            assert panel["description"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"

    def test_promtool_accepts_the_configuration_the_rules_and_the_queries(self, tmp_path: Path) -> None:
        promtool = shutil.which("promtool")
        if promtool is None:
            pytest.skip("promtool not found: install Prometheus (Debian: apt-get install prometheus)")
        queries = [
            target["expr"].replace("$__rate_interval", "5m")
            for panel in json.loads(DASHBOARD.read_text())["panels"]
            for target in panel.get("targets", ())
        ]
        rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(queries)]
        dashboard_rules = tmp_path / "dashboard.yml"  # JSON is YAML
        dashboard_rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        for check in (
            ["config", PROMETHEUS / "prometheus.yml"],
            ["rules", PROMETHEUS / "alerts.yml"],
            ["rules", dashboard_rules],
        ):
            result = subprocess.run(
                [promtool, "check", *check], capture_output=True, text=True, check=False, timeout=MAX_WAIT_SECONDS
            )
            assert result.returncode == 0, result.stdout + result.stderr
