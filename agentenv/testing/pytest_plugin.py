"""A pytest plugin: `pytest --agentenv-check ENV_ID` runs every law of the contract as a test of its own.

ENV_ID is a registered id, or `package.module:Class` for an environment that is not registered. It may be given several
times. `--agentenv-actions FILE` and `--agentenv-trees FILE` give actions that reach further than random ones. Nothing
else changes in a test run that does not use it.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from typing_extensions import override

if TYPE_CHECKING:
    from agentenv.env import Env
    from agentenv.testing.clauses import Clause
    from agentenv.testing.scripts import Script

__all__ = [
    "load_env",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_ignore_collect",
    "pytest_terminal_summary",
]

_SCRIPTS = pytest.StashKey["dict[str, list[Script]]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--agentenv-check`."""
    group = parser.getgroup("agentenv", "environments that branch")
    group.addoption(
        "--agentenv-check",
        action="append",
        default=[],
        metavar="ENV_ID",
        help="check that an environment keeps the contract: a registered id, or package.module:Class",
    )
    group.addoption("--agentenv-actions", metavar="FILE", help="play these actions instead of random ones (JSONL)")
    group.addoption("--agentenv-trees", metavar="FILE", help="play the actions of these trees")


def load_env(name: str) -> "type[Env]":
    """Returns the class of an environment, named as for `agentenv.make`.

    Raises:
        pytest.UsageError: no such id, or the module or the class does not exist, or is no environment.
    """
    from agentenv.registry import env_class

    try:
        return env_class(name)
    except Exception as error:  # whatever the module raises while it is imported
        msg = f"--agentenv-check {name}: {error}"
        raise pytest.UsageError(msg) from error


class _ClauseItem(pytest.Item):
    """One law, tried on one environment."""

    env: Any
    clause: "Clause[Any]"
    scripts: "Callable[[], list[Script]]"

    @override
    def runtest(self) -> None:
        from agentenv.testing import run_clauses

        (result,) = run_clauses(self.env, actions=self.scripts(), clauses=[self.clause])
        if result.outcome == "skipped":
            pytest.skip(result.detail)
        if result.outcome == "failed":
            pytest.fail(f"{result.law}\n    {result.detail}", pytrace=False)

    @override
    def reportinfo(self) -> tuple[str, int | None, str]:
        return "agentenv", None, self.name


def _items(session: pytest.Session, name: str) -> Iterator[pytest.Item]:
    from agentenv.testing import CLAUSES

    env = load_env(name)
    for clause in CLAUSES:
        item: Any = cast("Any", _ClauseItem).from_parent(session, name=f"{name}[{clause.name}]")
        item.env, item.clause, item.scripts = env, clause, partial(_scripts, session.config, name)
        yield item


def _scripts(config: pytest.Config, name: str) -> "list[Script]":
    """The episodes that an environment's laws are tried on, chosen once."""
    from agentenv.testing import prepare_scripts

    chosen = config.stash.setdefault(_SCRIPTS, {})
    if name not in chosen:
        given = {"actions": "--agentenv-actions", "trees": "--agentenv-trees"}
        options: dict[str, Any] = {key: config.getoption(option) for key, option in given.items()}
        chosen[name] = prepare_scripts(load_env(name), **options)
    return chosen[name]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what the episodes did not reach, which no law was tried on."""
    from agentenv.testing import inspect_env

    for name in config.getoption("--agentenv-check") or ():
        if _SCRIPTS in config.stash and name in config.stash[_SCRIPTS]:
            report = inspect_env(load_env(name), actions=_scripts(config, name), clauses=[])
            terminalreporter.section(f"what the actions reached of {name}")
            for line in (*report.coverage, *(f"warning: {warning}" for warning in report.warnings())):
                terminalreporter.write_line(line)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collects no files where the option was given: the clauses are the tests."""
    return True if config.getoption("--agentenv-check") else None


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds the clauses where the option was given."""
    if config.getoption("--agentenv-check") and (here := str(config.invocation_params.dir)) not in sys.path:
        sys.path.insert(0, here)  # as `python -m pytest` does, so that a module beside the user is found
    items.extend(item for name in config.getoption("--agentenv-check") or () for item in _items(session, name))
