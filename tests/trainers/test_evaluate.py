"""evaluate_agent: means over fixed tasks, failures apart."""

import math

from trainer_env import TASKS, Digits, Flaky

from agentenv import Action
from agentenv.trainers import evaluate_agent


class Says:
    def __init__(self, text):
        self.text = text

    def act(self, contexts):
        return [Action(self.text) for _ in contexts]


def test_counts_successes_and_steps():
    right = evaluate_agent(Digits, Says("1"), TASKS[:10], batch_size=4)
    assert (right.success, right.mean_return, right.mean_steps, right.num_episodes) == (1.0, 1.0, 2.0, 10)
    assert right.standard_error == 0
    assert [tree.task_id for tree in right.trees] == [task["id"] for task in TASKS[:10]]
    wrong = evaluate_agent(Digits, Says("x"), TASKS[:10])
    assert (wrong.success, wrong.mean_return, wrong.mean_steps) == (0.0, 0.0, 3.0)


def test_failures_count_nowhere():
    seen = []
    result = evaluate_agent(Flaky, Says("1"), TASKS[:9], on_end=lambda: seen.append(1))
    assert (result.num_failed, result.num_episodes, result.success) == (3, 6, 1.0)
    assert len(seen) == 9


def test_nothing_to_average_is_nan_and_not_zero():
    result = evaluate_agent(Flaky, Says("1"), [TASKS[0]])
    assert math.isnan(result.success)
    assert math.isnan(result.standard_error)


def test_reads_well():
    assert str(evaluate_agent(Digits, Says("1"), TASKS[:4])) == "1.000 (standard error 0.000, 4 tasks)"
