"""Settings of the bundled environments: their tasks, what is imitated there, and that it fits the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agentenv.agents import TransformersAgent
from agentenv.agents.chat import ChatFormat
from agentenv.trainers import evaluate_agent
from agentenv.trainers.demonstrations import warm_start
from agentenv.trainers.imitation import encode_conversation, play_script
from agentenv.types import Action
from benchmarks.study.bundled import BUNDLED
from benchmarks.study.settings import SETTINGS

pytestmark = pytest.mark.model


def success(setting, play, tasks):
    """Plays as a script says, and returns the share of tasks that are solved; no step is a mistake."""
    rng, solved = np.random.default_rng(0), list[bool]()
    env = setting.make_env()
    for task in tasks:
        env.reset(seed=0, options={"task": task})
        reward, ended = 0.0, False
        for call in play.demonstrate(task, rng):
            assert not ended
            _, reward, ended, truncated, info = env.step(Action(tool_calls=(call,)))
            assert not info["mistakes"]
            assert not truncated
        assert ended
        solved.append(reward == 1)
    env.close()
    return np.mean(solved)


@pytest.mark.parametrize("name", ["search-qa", "search-qa-hard"])
def test_careful_play_solves_and_sloppy_play_leaves_something_to_learn(name):
    setting = SETTINGS[name]
    trained, held_out = setting.tasks
    assert {str(task) for task in trained}.isdisjoint(map(str, held_out))
    careful, sloppy = setting.plays
    assert success(setting, careful, held_out[:12]) == 1
    assert 0 < success(setting, sloppy, held_out[:64]) < (0.25 if name.endswith("-hard") else 0.7)


@pytest.mark.parametrize("name", ["code-repair", "code-repair-hard"])
def test_functions_are_repaired_as_their_reports_say(name):
    setting = SETTINGS[name]
    trained, held_out = setting.tasks
    assert {task.id for task in trained}.isdisjoint(task.id for task in held_out)
    careful, sloppy = setting.plays
    assert success(setting, careful, held_out[:2]) == 1
    rng = np.random.default_rng(0)
    right = [careful.demonstrate(task, rng)[-2:] == sloppy.demonstrate(task, rng)[-2:] for task in trained[:200]]
    assert 0 < np.mean(right) < (0.15 if name.endswith("-hard") else 0.6)
    for task in held_out:
        said = task.instruction.replace("plus", "+").replace("minus", "-").replace("times", "*")
        assert said.removeprefix("f is ") == task.solution["f.py"].strip().rpartition("return ")[2]
        assert task.files != task.solution


@pytest.mark.parametrize("name", ["search-qa-hard", "code-repair-hard"])
def test_what_is_imitated_fits_the_model(name):
    torch.set_num_threads(1)
    setting = SETTINGS[name]
    plays = [replace(play, updates=1) for play in setting.plays]
    model, tokenizer = warm_start(setting.make_env, plays, tasks=setting.tasks[0][:12], progress=False)
    chat, env = ChatFormat(tokenizer), setting.make_env()
    for task in setting.tasks[1][:8]:
        steps = [Action(tool_calls=(call,)) for call in setting.plays[0].demonstrate(task, np.random.default_rng(0))]
        example = encode_conversation(chat, play_script(env, steps, task=task), tools=env.tools)
        ends = np.flatnonzero(np.diff([0, *example.sampled, 0]))
        assert (ends[1::2] - ends[::2]).max() <= setting.max_action_tokens
        assert len(example.token_ids) < 700 <= model.config.max_position_embeddings
    env.close()
    agent = TransformersAgent(model, tokenizer, max_new_tokens=setting.max_action_tokens)
    assert 0 <= evaluate_agent(setting.make_env, agent, setting.tasks[1][:2]).success <= 1


def test_every_bundled_environment_has_an_easy_and_a_hard_form():
    assert set(BUNDLED) <= set(SETTINGS)
    for name in BUNDLED:
        assert SETTINGS[name].share == ((0.02, 0.08) if name.endswith("-hard") else (0.2, 0.4))
        assert {name, f"{name.removesuffix('-hard')}-hard"} <= set(BUNDLED)
