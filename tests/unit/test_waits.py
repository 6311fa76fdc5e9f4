"""Whatever the tests wait for has a deadline: what never comes is an error with a name, not a run that hangs."""

import ast
from collections.abc import Iterator

import pytest

from tests.support.servers import ROOT

#: Calls that wait for ever without their argument `timeout`, and the place of that argument, if it has one.
_PLACES = {"run": None, "check_call": None, "check_output": None, "communicate": 1, "result": 0, "create_connection": 1}
#: They are methods of many things; those of threads, processes and events are statements of their own.
_STATEMENTS = {"join", "wait"}
#: Their waits have deadlines of their own.
_BOUNDED = {"attacker", "self"}


def _endless(tree: ast.AST) -> Iterator[int]:
    """The lines of waits without a deadline."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), method), [], [])) if (
                method in _STATEMENTS and name not in _BOUNDED
            ):
                yield node.lineno
            case ast.Expr(ast.Call(ast.Attribute(ast.Attribute(), method), [], [])) if method in _STATEMENTS:
                yield node.lineno
            case ast.Call(ast.Attribute(value, method), arguments, keywords) if method in _PLACES:
                is_subprocess = isinstance(value, ast.Name) and value.id == "subprocess"
                place = _PLACES[method]
                if place is None and not is_subprocess:
                    continue
                has_place = place is not None and len(arguments) > place
                if not has_place and not any(keyword.arg in ("timeout", None) for keyword in keywords):
                    yield node.lineno


def test_every_wait_of_the_tests_has_a_deadline() -> None:
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.parts[len(ROOT.parts) + 1] != "benchmarks"]
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in _endless(ast.parse(file.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "code", ["subprocess.run([])", "thread.join()", "self.process.wait()", "future.result()", "child.communicate()"]
)
def test_a_wait_without_a_deadline_is_found(code: str) -> None:
    assert list(_endless(ast.parse(code))) == [1]


@pytest.mark.parametrize(
    "code", ["subprocess.run([], timeout=1)", "thread.join(1)", "alice.join().receive()", "future.result(timeout=1)"]
)
def test_others_are_not(code: str) -> None:
    assert list(_endless(ast.parse(code))) == []
