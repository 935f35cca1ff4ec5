"""When requests are sent: rates, waiting times, and what servers ask for."""

from datetime import UTC, datetime

import pytest

from agentenv.agents.pacing import Backoff, Pace, retry_after_seconds


def test_paces_by_hand():
    now = [100.0]
    pace = Pace(60, burst=2.0, clock=lambda: now[0])
    assert [pace.reserve() for _ in range(3)] == [0.0, 1.0, 2.0], "one a second"
    now[0] += 10
    assert [pace.reserve() for _ in range(4)] == [0.0, 0.0, 0.0, 1.0], "two seconds' worth may have been saved up"
    pace.correct(-1)
    assert pace.reserve() == 1.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7.0), ({"retry-after": "-1"}, None), ({"retry-after": "soon"}, None), ({}, None),
     ({"retry-after": "nan"}, None), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
     ({"retry-after": "Sat, 28 Nov 2026 12:00:30 GMT"}, 30.0), ({"retry-after": "Sat, 28 Nov 2026 11:00:00 GMT"}, 0.0)],
)  # fmt: skip
def test_retry_after_is_read(headers, seconds):
    assert retry_after_seconds(headers, now=datetime(2026, 11, 28, 12, tzinfo=UTC)) == seconds


def test_backoff_doubles_with_jitter_up_to_a_limit():
    backoff = Backoff(1, 20)
    for failures, wait in ((1, 1), (2, 2), (3, 4), (5, 16), (6, 20), (1000, 20)):
        drawn = [backoff.seconds(failures) for _ in range(50)]
        assert wait / 2 <= min(drawn) < max(drawn) <= wait
