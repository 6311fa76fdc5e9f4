"""The tables of `docs/api.md`: every route and every error, as they are."""

import re
from datetime import UTC, datetime

from flask import Flask

from api.http import problems
from shared.errors import BudgetExceededError, PromptwireError
from tests.support.servers import ROOT

GUIDE = (ROOT / "docs" / "api.md").read_text()

#: Served, but not calls of their own: the files of a page, and what refuses a wrong WebSocket URL.
NO_CALLS = re.compile(r"/(static|docs)/.+|/ws/|/ws/prompts/|/ws/\{rest\}")


def test_the_guide_lists_every_route(app: Flask) -> None:
    served = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(?:\w+_(?=id>))?(\w+)>", r"{\1}", str(rule))
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            served.add(("WS" if rule.websocket or path.startswith("/ws/") else method, path))
    listed = set(re.findall(r"^\| `(GET|POST|PATCH|DELETE|WS) (\S+)` \|", GUIDE, re.MULTILINE))
    assert listed == {(method, path) for method, path in served if not NO_CALLS.fullmatch(path)}


def test_the_guide_lists_every_kind_of_error_with_its_status(app: Flask) -> None:
    def kinds(parent: type[PromptwireError]) -> set[type[PromptwireError]]:
        found = {kind for kind in parent.__subclasses__() if kind.__module__ == "shared.errors"}
        return found.union(*map(kinds, found))

    def make(kind: type[PromptwireError]) -> PromptwireError:
        if kind is BudgetExceededError:
            return BudgetExceededError("It failed.", limit="", resets_at=datetime.now(UTC))
        return kind("It failed.")

    with app.app_context():
        answers = [problems.from_error(make(kind)) for kind in kinds(PromptwireError)]
    kinds_answered = {(str(answer.status_code), answer.json["type"]) for answer in answers if answer.status_code != 500}
    kinds_answered -= {("400", "about:blank")}  # the table says that of all that is not valid
    listed = re.findall(r"^\| (\d+) \| `(urn:\S+)` \|", GUIDE, re.MULTILINE)
    assert sorted(listed) == sorted(kinds_answered)
