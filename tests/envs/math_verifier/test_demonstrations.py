"""Scripted play: the careful solver is always right, the noisy one as often as its slips allow."""

import numpy as np
import pytest

from agentenv.envs.math_verifier import GENERATORS, MathTask, MathVerifier, careful_calls, noisy_calls

LEVELS = [(kind, level) for kind in ("arithmetic", "equation") for level in range(1, GENERATORS[kind].highest + 1)]


def outcome(env, task, calls):
    env.reset(options={"task": task})
    reward, terminated = 0.0, False
    for call in calls:
        observation, reward, terminated, _, info = env.step({"role": "assistant", "tool_calls": [call.to_dict()]})
        assert info["mistakes"] == [], (task, call, observation)
    assert terminated
    return reward


@pytest.mark.parametrize(("kind", "level"), LEVELS)
def test_the_careful_solver_is_right_one_operation_at_a_time(kind, level):
    rng = np.random.default_rng(level)
    env = MathVerifier(operations_per_call=1)
    for _ in range(40):
        task = GENERATORS[kind](rng, level)
        calls = careful_calls(task)
        assert outcome(env, task, calls) == 1.0
        assert kind == "equation" or len(calls) == level + 2


def test_the_noisy_solver_without_noise_is_the_careful_one():
    rng = np.random.default_rng(0)
    for kind, level in LEVELS:
        task = GENERATORS[kind](rng, level)
        assert noisy_calls(task, rng, left_to_right=0, mistype=0, early=0) == careful_calls(task)


def test_reading_from_left_to_right_is_always_wrong():
    rng = np.random.default_rng(0)
    env = MathVerifier(operations_per_call=1)
    for _ in range(100):
        task = GENERATORS["arithmetic"](rng, 2)
        assert outcome(env, task, noisy_calls(task, rng, left_to_right=1, mistype=0, early=0)) == 0.0


def test_success_of_the_noisy_solver_is_what_its_slips_leave():
    rng = np.random.default_rng(0)
    env = MathVerifier(operations_per_call=1)
    tasks = [GENERATORS["arithmetic"](rng, 2) for _ in range(600)]
    success = np.mean([outcome(env, t, noisy_calls(t, rng, left_to_right=0.5, mistype=0, early=0)) for t in tasks])
    assert abs(success - 0.5) < 0.07
    early = np.mean([outcome(env, t, noisy_calls(t, rng, left_to_right=0, mistype=0, early=0.3)) for t in tasks])
    assert abs(early - 0.7**2) < 0.08  # two calculations after the first; giving up is right by luck alone


def test_the_same_generator_gives_the_same_play():
    task = GENERATORS["arithmetic"](np.random.default_rng(0), 4)
    plays = [noisy_calls(task, np.random.default_rng(7)) for _ in range(2)]
    assert plays[0] == plays[1]


@pytest.mark.parametrize(
    "task",
    [
        MathTask(question="How many?", reference="3"),
        MathTask(question="Compute 1 + 2 * 3.", reference="7", kind="gsm8k"),
    ],
)
def test_other_tasks_are_refused(task):
    with pytest.raises(ValueError, match="'arithmetic' or 'equation'"):
        careful_calls(task)
