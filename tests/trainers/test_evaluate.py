"""evaluate_agent: means over fixed tasks, failures apart."""

import math

from trainer_env import TASKS, Digits, Flaky

from agentenv import Action
from agentenv.trainers import evaluate_agent
from agentenv.wrappers import LimitObservation


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


class Endless(Digits):
    max_steps = None

    def respond(self, action):
        return "go on"


def test_an_environment_without_a_limit_ends_all_the_same():
    result = evaluate_agent(Endless, Says("x"), TASKS[:2], max_steps=7)
    assert (result.mean_steps, result.success, result.stats.roots.truncated) == (7.0, 0.0, 2)
    wrapped = evaluate_agent(lambda: LimitObservation(Endless(), 100), Says("x"), TASKS[:2], max_steps=5)
    assert wrapped.mean_steps == 5.0
    own = evaluate_agent(lambda: Endless(max_steps=3), Says("x"), TASKS[:2], max_steps=7)
    assert own.mean_steps == 3.0


def test_one_success_in_nine_tasks_is_one_ninth():
    class NinthWins(Digits):
        def respond(self, action):
            self.add_reward(float(self.task.id == "t8"))
            return self.finish("done")

    assert evaluate_agent(NinthWins, Says("x"), TASKS[:9], batch_size=4).success == 1 / 9


def test_drawn_tasks_differ_between_batches_and_are_the_same_every_time():
    def draw():
        result = evaluate_agent(lambda: Digits(tasks=TASKS), Says("1"), [None] * 32, batch_size=8)
        return [tree.task_id for tree in result.trees]

    drawn = draw(), draw()
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 15  # 32 draws from 32 tasks


def test_reads_well():
    assert str(evaluate_agent(Digits, Says("1"), TASKS[:4])) == "1.000 (standard error 0.000, 4 tasks)"
