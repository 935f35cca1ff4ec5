"""`Env` and `ToolEnv`: the episode, its ends, its tasks and its errors. Branching is in `test_branching.py`."""

import copy
import json
import pickle
import re
from typing import Any

import numpy as np
import pytest
from envs_for_tests import Boxed, Dice, Dynamic, Flaky, Guess, MemorySandbox, call, guess, texts

import agentenv as ae
from agentenv.errors import EpisodeError, InfrastructureError, SandboxError, SnapshotError, TaskError


def started(cls, seed=0, **kwargs) -> Any:
    env = cls(**kwargs)
    env.reset(seed=seed)
    return env


def test_the_environment_of_the_first_screen_plays_by_hand():
    env = Guess()
    observation, info = env.reset(seed=0)
    assert observation == ({"role": "user", "content": "I am thinking of a number from 1 to 100."},)
    assert set(info) == {"task_id", "step_count"}
    target = env.state.target
    assert texts(env.step(guess(target - 1))[0]) == "higher"
    observation, reward, terminated, truncated, info = env.step(guess(target))
    assert observation == ({"role": "tool", "content": "correct", "name": "guess", "tool_call_id": "call_0"},)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {"step_count": 2, "rewards": {"outcome": 1.0}, "mistakes": []}


def test_the_step_limit_truncates_and_the_end_of_the_task_wins_over_it():
    env = started(Guess, max_steps=2)
    assert env.step(guess(0))[2:4] == (False, False)
    assert env.step(guess(0))[2:4] == (False, True)
    env.reset(seed=0)
    env.step(guess(0))
    assert env.step(guess(env.state.target))[2:4] == (True, False)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda env: None, r"Guess-v0: cannot step: call reset\(\) before step\(\)"),
        (lambda env: (env.reset(), env.close()), r"call reset\(\) before step\(\)"),
        (
            lambda env: (env.reset(seed=0), env.step(guess(env.state.target))),
            r"ended at step 1: call reset\(\), or restore\(\)",
        ),
    ],
    ids=["new", "closed", "ended"],
)
def test_a_step_out_of_turn_raises(prepare, words):
    env = Guess()
    prepare(env)
    with pytest.raises(EpisodeError, match=words):
        env.step(guess(1))


class Bugs(Guess):
    @ae.tool
    def broken(self) -> str:
        """Has a bug."""
        return str(self.state.no_such_field)


def test_a_bug_in_a_tool_reaches_the_caller_and_fails_the_episode_until_a_restore_or_reset():
    env = started(Bugs)
    snapshot = env.snapshot()
    with pytest.raises(AttributeError, match="no_such_field"):
        env.step(call("broken"))
    with pytest.raises(EpisodeError, match="the episode failed"):
        env.step(guess(1))
    with pytest.raises(SnapshotError, match="cannot snapshot: the episode failed"):
        env.snapshot()
    with pytest.raises(SnapshotError, match="the episode failed"):
        env.fork(1)
    env.restore(snapshot)
    assert env.step(guess(env.state.target))[2]
    env.reset(seed=0)
    env.step(guess(1))


def test_a_failure_of_infrastructure_leaves_no_reward_and_can_be_restored():
    env = started(Boxed)
    snapshot = env.snapshot()
    env.sandbox.dead = True
    with pytest.raises(InfrastructureError, match="the sandbox died"):
        env.step(call("write", text="a"))
    with pytest.raises(SandboxError):
        env.restore(snapshot)
    with pytest.raises(EpisodeError, match="the episode failed"):
        env.step(call("write", text="a"))
    env.close()
    env.restore(snapshot)  # into a sandbox that is opened afresh
    assert texts(env.step(call("write", text="a"))[0]) == "a"
    env.close()
    assert not MemorySandbox.opened


def test_a_failing_start_is_no_episode():
    Flaky.failing_resets = 1
    env = Flaky()
    with pytest.raises(InfrastructureError):
        env.reset(seed=0)
    with pytest.raises(EpisodeError, match="the episode failed"):
        env.step(call("hold"))
    env.reset(seed=0)
    env.step(call("hold"))


def test_rewards_add_up_by_name():
    class Paid(ae.Env):
        def start(self, task):
            return "go"

        def respond(self, action):
            self.add_reward(0.25, name="format")
            self.add_reward(0.25, name="format")
            self.add_reward(-1)
            return self.finish("end", reward=2.0)

    _, reward, _, _, info = started(Paid).step("x")
    assert reward == 1.5
    assert info["rewards"] == {"format": 0.5, "reward": -1.0, "outcome": 2.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf")])
def test_a_reward_must_be_finite(value):
    with pytest.raises(
        ValueError, match=r"reward must be a finite number, got .* for 'bonus'.*raise InfrastructureError"
    ):
        started(Guess).add_reward(value, name="bonus")


# ---------------------------------------------------------------------- actions without tools, several tools


def test_text_without_a_tool_call_gets_a_reminder():
    env = started(Guess)
    observation, reward, terminated, _, info = env.step("forty-two")
    assert observation == ({"role": "user", "content": "no tool was called. Tools: guess(number: integer)"},)
    assert (reward, terminated) == (0.0, False)
    assert info["mistakes"] == ["no tool was called. Tools: guess(number: integer)"]
    assert "the tool call is not valid JSON" in texts(env.step("<tool_call>{guess: 4</tool_call>")[0])
    for text in ("<tool_call><function=guess>\n<parameter=number>4", '<invoke name="guess">', "[TOOL_CALLS]guess"):
        assert "the tool call could not be read: is it complete?" in texts(env.step(text)[0])


def test_several_calls_in_one_action_are_answered_in_order_and_counted_once():
    env = started(Dice)
    calls = [
        {"id": "a", "function": {"name": "roll", "arguments": "{}"}},
        {"function": {"name": "roll", "arguments": {"sides": 1}}},
        {"id": "c", "function": {"name": "roll", "arguments": {"sides": 2}}},
    ]
    observation, reward, *_, info = env.step({"role": "assistant", "content": "now", "tool_calls": calls})
    assert [m.get("tool_call_id") for m in observation] == ["a", None, "c"]
    assert observation[1]["content"] == "sides must be at least 2, got 1"
    assert (reward, info["step_count"], len(env.state.rolls)) == (-0.25, 1, 2)
    assert info["mistakes"] == ["sides must be at least 2, got 1"]


def test_calls_after_the_one_that_ends_the_episode_are_not_made():
    env = started(Dice)
    roll, hold = {"name": "roll", "arguments": {}}, {"name": "hold", "arguments": {}}
    observation, _, terminated, _, info = env.step({"role": "assistant", "tool_calls": [roll, hold, roll]})
    assert terminated
    assert [m.get("name") for m in observation] == ["roll", "hold"]
    assert info["rewards"] == {"cost": -0.125, "outcome": 0.0}
    assert len(env.state.rolls) == 1


def test_what_a_tool_returns_becomes_text():
    class Kinds(ae.ToolEnv):
        def start(self, task):
            return "go"

        @ae.tool
        def give(self, kind: str) -> Any:
            """Give something."""
            return {"none": None, "dict": {"ä": [1, 2.5]}, "path": {"x": complex(1)}, "text": "as it is"}[kind]

    env = started(Kinds)
    answers = [texts(env.step(call("give", kind=kind))[0]) for kind in ("none", "dict", "path", "text")]
    assert answers == ["", '{"ä": [1, 2.5]}', '{"x": "1+0j"}', "as it is"]


def test_an_observation_belongs_to_the_caller():
    env = started(Guess, render_mode="ansi")
    observation, _ = env.reset(seed=0)
    observation[0]["content"] = "changed"
    assert env.render() == "[user] I am thinking of a number from 1 to 100."
    observation, *_ = env.step(guess(0))
    observation[0]["content"] = "changed"
    assert env.render() == "[tool] higher"
    assert started(Guess).render() is None


@pytest.mark.parametrize("action", [5, None, {"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": 3}])
def test_a_wrong_type_of_action_changes_nothing(action):
    env = started(Guess)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    assert env.step(guess(env.state.target))[2]


@pytest.mark.parametrize("answer", [None, 5, ["text"], [{"role": "user"}], {"content": "x"}])
def test_a_wrong_observation_is_named(answer):
    class Wrong(ae.Env):
        def start(self, task):
            return answer

    with pytest.raises(ValueError, match="observation.*" + str(answer)[:4].strip("[]{}'").split("'")[0]):
        Wrong().reset()


def test_missing_methods_are_named():
    class Empty(ae.Env):
        pass

    class Silent(ae.Env):
        def start(self, task):
            return "go"

    with pytest.raises(TypeError, match=r"Empty must define start\(self, task\)"):
        Empty().reset()
    with pytest.raises(TypeError, match=r"Silent must define respond\(self, action\)"):
        started(Silent).step("x")


# ---------------------------------------------------------------------- tasks


def test_a_task_can_be_a_model_a_mapping_or_an_index():
    env = Dice(tasks=[{"goal": 5}, Dice.Task(id="ten", goal=10)])
    assert texts(env.reset(options={"task": {"goal": 7}})[0]) == "Reach 7."
    assert texts(env.reset(options={"task": Dice.Task(goal=8)})[0]) == "Reach 8."
    assert texts(env.reset(options={"task": 0})[0]) == "Reach 5."
    observation, info = env.reset(options={"task": np.int64(1)})
    assert (texts(observation), info["task_id"]) == ("Reach 10.", "ten")
    assert {texts(env.reset(seed=seed)[0]) for seed in range(20)} == {"Reach 5.", "Reach 10."}
    assert texts(Dice().reset()[0]) == "Reach 20."


@pytest.mark.parametrize("base", [Dice, Dynamic])
def test_tasks_that_were_given_are_drawn_where_the_class_makes_up_its_own_too(base):
    class MakesUp(base):  # pyright: ignore[reportUntypedBaseClass]
        def sample_task(self):
            return {"goal": int(self.np_random.integers(100, 200))}

    env = MakesUp(tasks=({"goal": goal} for goal in (5, 7)))
    for one in (env, env.spawn()):
        found = {str(one.reset(seed=seed)[0][0]["content"]) for seed in range(20)}
        assert found == {str(one.reset(options={"task": index})[0][0]["content"]) for index in (0, 1)}
    assert "1" in texts(MakesUp().reset(seed=0)[0])


def test_a_class_may_draw_from_its_tasks_in_its_own_way():
    class Hardest(Dynamic):
        def draw_task(self):
            return max(self.tasks)

    assert {texts(Hardest(tasks=[10, 20, 15]).reset(seed=seed)[0]) for seed in range(5)} == {"task 20"}


def test_whole_numbers_can_be_tasks():
    env = Dynamic(tasks=[10, 20])
    assert {texts(env.reset(seed=seed)[0]) for seed in range(20)} == {"task 10", "task 20"}
    assert texts(env.reset(options={"task": 1})[0]) == "task 20"
    assert texts(Dynamic().reset(options={"task": 7})[0]) == "task 7"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"goal": "many"}, r"options\['task'\] does not fit Dice.Task: goal: .*integer.*got \{'goal': 'many'\}"),
        ({"goal": 1, "aim": 2}, "aim: Extra inputs are not permitted"),
        ("text", "does not fit Dice.Task: task: .*got 'text'"),
        (9, r"must be an index in \[0, 1\), got 9"),
        (-1, r"must be an index in \[0, 1\), got -1"),
    ],
)
def test_a_task_of_the_wrong_shape_names_field_rule_and_value(task, words):
    env = Dice(tasks=[{"goal": 5}])
    with pytest.raises(TaskError, match=words):
        env.reset(options={"task": task})
    with pytest.raises(EpisodeError, match="the episode failed"):
        env.step(call("hold"))


@pytest.mark.parametrize("wrong", [None, 7, {"aim": 1}, "text"])
@pytest.mark.parametrize("method", ["draw_task", "sample_task"])
def test_a_drawn_task_of_the_wrong_shape_names_the_method_and_the_remedy(method, wrong):
    fields: dict[str, Any] = {method: lambda _: wrong}
    with pytest.raises(TaskError, match=rf"^what {method} returned does not fit Dice.Task: .*; it must be a Task or a"):
        type("Draws", (Dice,), fields)().reset()
    with pytest.raises(TaskError, match=r"^one of tasks does not fit Dice.Task: goal: .*; it must be a Task or a"):
        Dice(tasks=[{"goal": "many"}]).reset()


def test_a_drawn_task_is_the_one_that_was_returned_and_its_fields_become_one():
    class Easiest(Dice):
        def draw_task(self):
            return self.tasks[0]

    tasks = [Dice.Task(goal=5), Dice.Task(goal=10)]
    env = Easiest(tasks=tasks)
    env.reset()
    assert env.task is tasks[0]
    env = Easiest(tasks=[{"id": "five", "goal": 5}])
    env.reset()
    assert env.task == Dice.Task(id="five", goal=5)


def test_an_id_names_one_of_the_tasks():
    env = Dice(tasks=[{"id": "five", "goal": 5}, Dice.Task(id="ten", goal=10), {"id": 7, "goal": 7}, {"goal": 8}])
    for name, goal in (("five", 5), ("ten", 10), ("7", 7)):
        assert texts(env.reset(options={"task": name})[0]) == f"Reach {goal}."
    for wrong in ("eleven", ""):
        with pytest.raises(TaskError, match=r"give a Dice.Task or .*, or the index or the id of one of its 4 tasks"):
            env.reset(options={"task": wrong})
    with pytest.raises(TaskError, match=r"got 'two'; give a Dice.Task or a mapping"):
        Dice(tasks=[{"id": "two", "goal": 1}, {"id": "two", "goal": 2}]).reset(options={"task": "two"})
    for wrong in (0, "ten"):
        with pytest.raises(TaskError, match="there are no tasks= that it could be the index or the id of"):
            Dice().reset(options={"task": wrong})


def test_an_environment_without_tasks_says_how_to_give_some():
    class Needs(ae.ToolEnv):
        class Task(ae.Task):
            goal: int

    with pytest.raises(TaskError, match=r"Needs-v0 has no tasks: pass tasks=\[...\]"):
        Needs().reset()


def test_equal_tasks_have_equal_ids_and_others_do_not():
    ids = [Dice().reset(options={"task": {"goal": goal}})[1]["task_id"] for goal in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match=r"options may hold 'task', got \['taks'\]"):
        Guess().reset(options={"taks": 1})
    for wrong in (5, "task", [("task", 1)]):
        with pytest.raises(ValueError, match="options must be a mapping such as "):
            Guess().reset(options=wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", [type("Task", (), {"goal": 1}), dict, 5])
def test_a_task_model_that_is_none_is_refused_where_it_is_declared(wrong):
    with pytest.raises(TypeError, match=r"Wrong.Task must subclass agentenv.Task \(a pydantic model\), got "):
        type("Wrong", (ae.Env,), {"Task": wrong})


# ---------------------------------------------------------------------- making environments


@pytest.mark.parametrize(
    ("name", "rule", "fine", "wrong"),
    [
        ("max_steps", "an integer of at least 1", [None, 1, np.int64(3)], ["many", 0, -2, 2.5, True]),
        ("success_threshold", "a finite number", [0, -1.5, np.float32(0.5)], ["a", None, float("nan"), float("inf")]),
        ("name", "text such as 'mine/Env'", ["Foo", "mine/Foo-x.y"], ["Foo Bar", "", "a/b/c", 5, None]),
        ("version", "an integer of at least 0", [0, 7, np.int64(1)], ["x", -1, 1.5, True, None]),
    ],
)
def test_what_a_class_declares_is_checked_as_arguments_are(name, rule, fine, wrong):
    for value in fine:
        type("Declares", (Guess,), {name: value})().reset(seed=0)
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^Declares.{name} must be {rule}.*, got {re.escape(repr(value))}$"):
            type("Declares", (Guess,), {name: value})()
    assert getattr(type("Own", (Guess,), {name: property(lambda _: fine[-1])})(), name) == fine[-1]


def test_a_class_names_its_environment():
    class Other(Guess):
        version = 3

    class Named(Guess):
        name = "mine/Named"

    assert [cls().env_id for cls in (Guess, Other, Named)] == ["Guess-v0", "Other-v3", "mine/Named-v0"]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"max_steps": "a"}, "max_steps must be an integer, got 'a'"),
        ({"max_steps": 2.5}, "max_steps must be an integer, got 2.5"),
        ({"render_mode": "human"}, "render_mode must be None or 'ansi', got 'human'"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Guess(**kwargs)


def test_a_state_must_be_a_model_with_defaults():
    with pytest.raises(TypeError, match=r"Wrong.State must subclass agentenv.State"):

        class Wrong(ae.Env):  # pyright: ignore[reportUnusedClass]
            State: Any = dict

    with pytest.raises(TypeError, match=r"Needs.State.target needs a default"):

        class Needs(ae.Env):  # pyright: ignore[reportUnusedClass]
            class State(ae.State):
                target: int

    with pytest.raises(ValueError, match="targte"):
        Guess.State(targte=3)  # pyright: ignore[reportCallIssue]


def test_states_of_two_episodes_share_nothing():
    first, second = started(Dice), started(Dice)
    first.step(call("roll"))
    assert second.state.rolls == []
    first.reset(seed=0)
    assert first.state.rolls == []


def test_an_environment_pickles_without_its_episode():
    env = started(Guess, max_steps=3)
    again = pickle.loads(pickle.dumps(env))
    assert (type(again), again.max_steps) == (Guess, 3)
    with pytest.raises(EpisodeError, match="call reset"):
        again.step(guess(1))
    assert copy.deepcopy(env).max_steps == 3


def test_seeds_repeat_and_no_seed_goes_on():
    env = Guess()
    targets = []
    for seed in (3, None, 3, None):
        env.reset(seed=seed)
        targets.append(env.state.target)
    assert targets[:2] == targets[2:]
    assert targets[0] != targets[1]


# ---------------------------------------------------------------------- signatures


def test_the_default_signature_of_a_state_is_its_content():
    env, other = started(Dice, seed=0), started(Dice, seed=1)
    assert env.state_signature() == other.state_signature()  # random numbers and step count are left out
    env.step(call("roll", sides=1))
    assert env.state_signature() == other.state_signature()
    env.step(call("roll"))
    changed = env.state_signature()
    assert changed != other.state_signature()
    env.step(call("hold"))
    assert env.state_signature() != changed, "an ended episode is another state"


def test_the_default_signature_of_an_action_is_what_it_did():
    env = started(Dice)
    one = ae.Action("thinking", (ae.ToolCall("roll", {"a": 1, "b": 2}, "x"),), (1, 2))
    two = ae.Action("", (ae.ToolCall("roll", {"b": 2, "a": 1}, "y"),))
    assert env.action_signature(one) == env.action_signature(two)
    assert env.action_signature(two) != env.action_signature(ae.Action("", (ae.ToolCall("roll", {"a": 1, "b": 2.0}),)))
    assert env.action_signature(ae.Action(" hi\n")) == "hi"
    json.loads(env.action_signature(one))


def test_what_is_printed_of_a_snapshot_hides_the_answer_and_the_bytes():
    env = Dice(tasks=[{"goal": 123456}])
    env.reset(seed=0)
    env.step(call("roll"))
    text = repr(env.snapshot())
    assert re.fullmatch(r"<Snapshot of Dice-v0: step 1, running, \d+ bytes, portable>", text)
    assert text == str(env.snapshot()) == f"{env.snapshot()}"
    box = started(Boxed)
    assert "and a sandbox" in repr(box.snapshot())
    box.close()
    assert "123456" not in repr(env.advance(call("roll"), snapshot=True))


@pytest.mark.parametrize(
    "action",
    [None, 5, b"x", ["text"], [{"role": "assistant", "content": "x"}], Dice, {}, {"choices": [{"message": {}}]}],
)
def test_whatever_is_no_action_is_named_and_changes_nothing(action):
    env = started(Boxed)
    for take in (env.step, env.advance):
        with pytest.raises(ValueError, match=r"action must be a str, an assistant message .* or an Action, got "):
            take(action)
    assert env.step_count == 0
    assert env.step(call("write", text="a"))[0][0]["content"] == "a"
    env.close()
