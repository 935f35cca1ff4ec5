"""Our environments in TRL's own tool loop: the same schemas, observations and rewards, and one update of stock GRPO."""

import json
import warnings
from functools import partial

import pytest
from envs_for_tests import Dice

import agentenv as ae
from agentenv.envs.math_verifier import MathVerifier
from agentenv.errors import InfrastructureError, TaskError
from agentenv.trainers import as_trl_environment, trl_rows
from agentenv.types import message_text

pytestmark = pytest.mark.model

BUNDLED = ["agentenv/MathVerifier-v0", "agentenv/SearchQA-v0", "agentenv/CodeRepair-v0"]


def played(name, calls, seed):
    """What our own `step` says to the calls, and the sum of its rewards."""
    env = ae.make(name)
    env.reset(seed=seed)
    texts, total = [], 0.0
    for tool, arguments in calls:
        call = {"type": "function", "id": "call_0", "function": {"name": tool, "arguments": arguments}}
        observation, reward, terminated, truncated, _ = env.step({"role": "assistant", "tool_calls": [call]})
        texts.append("\n".join(map(message_text, observation)))
        total += reward
        if terminated or truncated:
            break
    env.close()
    return texts, total


CALLS = {
    "agentenv/MathVerifier-v0": [
        ("calculate", {"expression": "2 * ("}),
        ("calculate", {"wrong": 1}),
        ("submit", {"answer": 43}),
    ],
    "agentenv/SearchQA-v0": [
        ("search", {"query": "born"}),
        ("search", {"query": "x", "k": 99}),
        ("answer", {"text": "?"}),
    ],
    "agentenv/CodeRepair-v0": [("run", {"command": "ls"}), ("read_file", {"path": "nowhere"}), ("submit", {})],
}


@pytest.mark.parametrize("name", BUNDLED)
def test_the_same_observations_and_rewards(name):
    texts, total = played(name, CALLS[name], seed=3)
    theirs = as_trl_environment(name)()
    (row,) = trl_rows(name, 1, seed=3)
    assert theirs.reset(**row) is None
    assert [getattr(theirs, tool)(**arguments) for tool, arguments in CALLS[name]] == texts
    assert theirs.get_reward() == total
    tool, arguments = CALLS[name][0]
    assert "has ended" in getattr(theirs, tool)(**arguments)
    assert theirs.get_reward() == total
    theirs.reset(**row)
    assert theirs.get_reward() == 0.0


def simple(part):
    """A property without what transformers' schemas leave out: defaults, bounds, and the form of unions."""
    kinds = [part.get("type", []), *(one.get("type") for one in part.get("anyOf", ()))]
    flat = {kind for one in kinds for kind in (one if isinstance(one, list) else [one])}
    return part.get("description"), sorted(flat - {"null"})


@pytest.mark.parametrize("name", BUNDLED)
def test_transformers_makes_the_same_schemas_of_the_methods(name):
    from transformers.utils.chat_template_utils import get_json_schema

    theirs, env = as_trl_environment(name)(), ae.make(name)
    for tool in env.tools:
        ours = tool["function"]
        made = get_json_schema(getattr(theirs, ours["name"]))["function"]
        assert (made["name"], made["description"]) == (ours["name"], ours["description"])
        expected = ours["parameters"]
        assert sorted(made["parameters"].get("required", [])) == sorted(expected.get("required", []))
        found, wanted = made["parameters"]["properties"], expected["properties"]
        assert {key: simple(part) for key, part in found.items()} == {key: simple(part) for key, part in wanted.items()}
    env.close()


class Kinds(ae.ToolEnv):
    """Tools of every kind of argument."""

    def start(self, task):
        return "go"

    @ae.tool
    def use(
        self, names: list[str], mode: str | None = None, table: dict[str, int] | None = None, on: bool = True
    ) -> str:
        """Use it.

        Args:
            names: a list
                over two lines.
            mode: one.
            table: two.
            on: three.
        """
        return json.dumps([names, mode, table, on])


def test_arguments_of_every_kind():
    from transformers.utils.chat_template_utils import get_json_schema

    theirs = as_trl_environment(Kinds)()
    parameters = get_json_schema(theirs.use)["function"]["parameters"]
    assert parameters["required"] == ["names"]
    assert parameters["properties"]["names"]["items"] == {"type": "string"}
    assert "over two lines" in parameters["properties"]["names"]["description"]
    theirs.reset()
    assert json.loads(theirs.use(names=["a"], table={"b": 1})) == [["a"], None, {"b": 1}, True]


def test_rows_name_tasks_and_all_episodes_of_a_row_play_the_same():
    tasks = [{"goal": 5}, {"goal": 9}]
    rows = trl_rows(Dice, [1, 0], tasks=tasks, seed=7)
    assert [(row["seed"], row["task"]) for row in rows] == [(7, 1), (8, 0)]
    assert [row["prompt"][-1]["content"] for row in rows] == ["Reach 9.", "Reach 5."]
    first, second = (as_trl_environment(Dice, tasks=tasks)() for _ in range(2))
    for each in (first, second):
        each.reset(**rows[0])
    assert first.roll(sides=1000) == second.roll(sides=1000)
    assert as_trl_environment(Dice, tasks=tasks)().reset(task=1) == "Reach 9."
    with pytest.raises(TaskError, match=r"an index in \[0, 2\), got 2"):
        trl_rows(Dice, [2], tasks=tasks)
    for none in (0, []):
        with pytest.raises(ValueError, match="which must be a number of tasks of at least 1"):
            trl_rows(Dice, none)


class Broken(Kinds):
    @ae.tool
    def fall(self) -> str:
        """Breaks."""
        msg = "the disk is gone"
        raise InfrastructureError(msg)

    @ae.tool
    def trip(self) -> str:
        """Has a bug."""
        raise KeyError(self.step_count)


class Silent(ae.Env):
    def start(self, task):
        return "say"


class Reserved(ae.ToolEnv):
    def start(self, task):
        return "go"

    @ae.tool
    def get_reward(self) -> str:
        """Asks."""
        return "no"


def test_infrastructure_gives_no_reward_and_what_cannot_be_played_is_refused():
    theirs = as_trl_environment(Broken)()
    theirs.reset()
    assert "the disk is gone" in theirs.fall()
    assert theirs.get_reward() is None
    theirs.reset()
    with pytest.raises(KeyError):
        theirs.trip()
    assert theirs.get_reward() is None and "has ended" in theirs.trip()
    theirs.reset()
    assert theirs.get_reward() == 0.0
    with pytest.raises(ValueError, match="Silent has no tools"):
        as_trl_environment(Silent)
    with pytest.raises(ValueError, match="a tool named 'get_reward', which TRL would not offer"):
        as_trl_environment(Reserved)


@pytest.mark.slow
def test_stock_grpo_trains_on_it(tmp_path):
    from datasets import Dataset
    from tiny_chat import random_model
    from trl.chat_template_utils import qwen3_chat_template
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    model, tokenizer = random_model()
    tokenizer.chat_template = qwen3_chat_template
    make = partial(MathVerifier, max_steps=3)
    args = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=64,
        max_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        logging_steps=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            args=args,
            train_dataset=Dataset.from_list(trl_rows(make, 4)),
            environment_factory=as_trl_environment(make),
        )
        trainer.train()
    (log,) = [log for log in trainer.state.log_history if "loss" in log]
    assert "rewards/MathVerifier/mean" in log
    assert 0.0 <= log["reward"] <= 1.0
