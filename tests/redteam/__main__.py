"""Tries until the time is over; prints a table of what was tried and what was found, and writes it as JSON.

make redteam REDTEAM_SECONDS=3600
python -m redteam --seconds 60 --places namespace,user --json found.json        # in tests/
python -m redteam --seed 7 --only scripts/namespace:31                          # one try again

Scripts, and submissions to each kind of task, take turns at every place, and as an ordinary user: so do all be tried in
an hour. A place that does not answer is named, and left out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redteam.anybody import AsUser
from redteam.trying import Gradings, Scripts, Try, answers, held_by_us, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main", "search", "teams_at"]

PLACES = "namespace,docker,podman,gvisor,process,user"
_NO_GRADINGS = ("process", "user")  # the first promises less; as an ordinary user both are tried in one


class Team:
    """One kind of try at one place; opened when first needed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._opened: Any = None
        self.tries = 0
        self.outcomes = Counter[str]()
        self.found: list[dict[str, Any]] = []

    def run(self, name: str, seed: int, number: int) -> Try:
        """Makes the try of a number."""
        if self._opened is None:
            self._opened = self._make()
        result: Try = self._opened.run(random.Random(f"{seed}/{name}/{number}"))
        self.tries += 1
        self.outcomes.update(result.outcome.split(", "))
        for kind, detail in result.findings:
            self.found.append({"kind": kind, "try": f"{name}:{number}", "detail": detail, "what": result.what})
        return result

    def close(self) -> None:
        """Frees what was opened."""
        if self._opened is not None:
            self._opened.close()


def teams_at(places: Sequence[str], *, gradings: bool) -> dict[str, Team]:
    """Returns everything to be tried, by name, in the order of its turns; `user` is an ordinary user on `namespace`."""
    found: dict[str, Team] = {}
    for place in places:
        if place == "user":
            found["all/user"] = Team(lambda: AsUser(gradings=gradings))
        else:
            found[f"scripts/{place}"] = Team(lambda place=place: Scripts(place))
    for name, task in tasks().items() if gradings else ():
        for place in places:
            if place not in _NO_GRADINGS:
                found[f"{name}/{place}"] = Team(lambda task=task, place=place: Gradings(task, place))
    return found


def search(teams: dict[str, Team], seed: int, seconds: float, only: str = "") -> list[dict[str, Any]]:
    """Tries in turn until the time is over, or one try alone; returns what was found."""
    began = time.monotonic()
    held: dict[str, int] = {}
    try:
        if only:
            name, _, number = only.rpartition(":")
            teams[name].run(name, seed, int(number))
        for name in () if only else cycle(teams):
            teams[name].run(name, seed, teams[name].tries)
            gone = time.monotonic() - began
            _show(gone / seconds, teams)
            if gone > seconds:
                break
            if not held and all(team.tries > 1 for team in teams.values()):
                held = held_by_us()
    finally:
        now = held_by_us()
        for team in teams.values():
            team.close()
    found = [finding for team in teams.values() for finding in team.found]
    if held and (left := {key: (held[key], now[key]) for key in held if now[key] > held[key] + 3}):
        found.append({"kind": "left over", "try": "all", "detail": f"{left}", "what": None})
    return found


def _show(share: float, teams: dict[str, Team]) -> None:
    if sys.stderr.isatty():
        bar = "#" * int(30 * min(1.0, share))
        tries, found = sum(team.tries for team in teams.values()), sum(len(team.found) for team in teams.values())
        sys.stderr.write(f"\r[{bar:30}] {tries} tries, {found} findings ")
        sys.stderr.flush()


def _table(teams: dict[str, Team]) -> str:
    lines = [f"{'':24}{'tries':>7}{'found':>7}   outcomes"]
    for name, team in teams.items():
        outcomes = ", ".join(f"{word} {count}" for word, count in team.outcomes.most_common())
        lines.append(f"{name:24}{team.tries:7}{len(team.found):7}   {outcomes}")
    return "\n".join(lines)


def main() -> int:
    """Searches and reports; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, help="of a run to repeat; fresh by default")
    parser.add_argument("--places", default=PLACES, help="back ends, podman, runsc and user, by comma")
    parser.add_argument("--no-gradings", action="store_true", help="scripts alone")
    parser.add_argument("--only", default="", metavar="NAME:NUMBER", help="one try alone")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    places = [place for place in arguments.places.split(",") if place == "user" or answers(place)]
    teams = teams_at(places, gradings=not arguments.no_gradings)
    found = search(teams, seed, arguments.seconds, arguments.only)
    print(f"\nseed {seed}\n{_table(teams)}")  # noqa: T201
    for finding in found:
        print(f"FOUND {finding['kind']}, {finding['try']}: {finding['detail']:.600}")  # noqa: T201
    if arguments.json:
        counts = {name: {"tries": team.tries, "outcomes": team.outcomes} for name, team in teams.items()}
        arguments.json.write_text(json.dumps({"seed": seed, "tried": counts, "found": found}, indent=1) + "\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
