import numpy as np
import pytest

from agentenv.envs.search_qa import QaTask, SearchQA
from agentenv.envs.search_qa.demonstrations import careful_calls, noisy_calls
from agentenv.types import Action


@pytest.fixture(scope="module")
def env():
    return SearchQA(world={"people": 20, "questions": 80})


def play(env, task, calls):
    """Plays one call per step; returns the outcome, and whether each call was valid and the last one ended it."""
    env.reset(options={"task": task})
    reward, info = 0.0, {}
    for place, call in enumerate(calls, start=1):
        _, reward, terminated, truncated, info = env.step(Action(tool_calls=(call,)))
        assert not info["mistakes"]
        assert terminated == (place == len(calls))
        assert not truncated
    return reward, info["metrics"]


def test_a_careful_reader_is_always_right(env):
    for task in env.tasks:
        reward, metrics = play(env, task, careful_calls(task))
        assert (reward, metrics["supporting_recall"]) == (1, 1)


def test_a_hasty_reader_is_sometimes_right(env):
    rng = np.random.default_rng(0)
    scores = [play(env, task, noisy_calls(task, rng))[0] for task in env.tasks]
    assert 0.3 < np.mean(scores) < 0.9
    perfect = [play(env, task, noisy_calls(task, rng, early=0, blind=0, guess=0))[0] for task in env.tasks]
    assert set(perfect) == {1}
    assert all(
        play(env, t, noisy_calls(t, rng, early=1))[0] == 0 for t in env.tasks if t.kind == "chain" and t.hops > 1
    )


def test_a_task_without_supporting_documents_is_refused():
    task = QaTask(question="Q?", answers=("x",))
    for make in (careful_calls, lambda task: noisy_calls(task, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="names no supporting documents"):
            make(task)
