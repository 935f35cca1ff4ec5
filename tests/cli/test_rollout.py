"""`agentenv rollout`: the trees, the summary, and who acts."""

import json
from typing import Any

import numpy as np
import pytest
from cli_runs import one_line_error, run, run_json

from agentenv import Task, ToolEnv
from agentenv.cli.console import own_command
from agentenv.cli.env_choice import EnvChoice, choose_env, sample_tasks
from agentenv.errors import TaskError
from agentenv.protocols import Sandbox
from agentenv.serialize import read_trees

MATH = "agentenv/MathVerifier-v0"


def test_random_play_grows_trees_that_branch_in_mid_episode(here):
    summary = run_json("rollout", "dice_env:Dice", "--tasks", 5, "--rollouts", 3, "--continuations", 2)
    trees = read_trees(here / "trees.jsonl")
    leaves = [tree.leaves() for tree in trees]
    assert [len(tree) for tree in leaves] == [5] * 5
    assert any(len(tree.children(node)) > 1 for tree in trees for node in range(1, len(tree)))
    valid = [(t, leaf, t.episode_return(leaf)) for t in trees for leaf in t.leaves()]
    returns = [value for *_, value in valid if value is not None]
    assert summary["file"] == "trees.jsonl"
    assert (summary["trees"], summary["episodes"]) == (5, len(returns))
    assert summary["nodes"] == sum(map(len, trees))
    assert summary["failed"] == len(valid) - len(returns)
    full = [all(t.nodes[i].rollout < 3 for i in t.path(leaf)[1:]) for t, leaf, _ in valid]
    of_full = [value for (*_, value), whole in zip(valid, full, strict=True) if whole and value is not None]
    assert summary["success"] == pytest.approx(np.mean(np.array(of_full) > 0.5), abs=1e-4)
    assert summary["continuations"] == len(returns) - len(of_full) == 10
    steps = [len(t.path(leaf)) - 1 for t, leaf, value in valid if value is not None]
    assert summary["mean steps"] == pytest.approx(np.mean(steps), abs=1e-4)


def test_what_infrastructure_broke_is_counted_and_left_out(here):
    summary = run_json("rollout", "dice_env:Fragile", "--tasks", 6, "--rollouts", 3)
    trees = read_trees(here / "trees.jsonl")
    broken = [node for tree in trees for node in tree.nodes if node.reward is None]
    assert summary["failed"] == len(broken) > 0
    assert summary["failure"] == "VerifierError: the verifier is gone"
    assert summary["episodes"] + summary["failed"] == sum(len(tree.leaves()) for tree in trees)


@pytest.mark.parametrize("words", [["rollout"], ["rollout", "--json"], ["eval"]])
def test_where_every_episode_failed_the_command_fails_and_says_why(here, words):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "crash", "arguments": {}}}]}
    (here / "crashing_agent.py").write_text(
        f"class Crash:\n    def act(self, contexts): return [{call}] * len(contexts)\n"
    )
    command, *more = words
    file = "--trees" if command == "eval" else "--out"
    few = ["--tasks", 2, "--rollouts", 2, file, "t.jsonl"]
    result = run(command, "dice_env:Fragile", "--agent", "crashing_agent:Crash", *few, *more)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no episode could be played") and "the verifier is gone" in result.stderr
    assert result.stderr.count("\n") == 1 and "failed" in result.stdout
    assert len(read_trees(here / "t.jsonl")) == 2, "what was written stays"


def test_the_same_seed_writes_the_same_trees_and_another_seed_others(here):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = ("--tasks", 3, "--continuations", 2, "--seed", seed, "--out", name)
        assert run("rollout", "dice_env:Dice", *words).exit_code == 0
    a, b, c = ([list(tree.nodes) for tree in read_trees(here / name)] for name in "abc")
    assert a == b != c, "but for what the steps cost"


@pytest.mark.parametrize("allocator", ["even", "random", "trace"])
def test_a_run_that_was_cut_goes_on_where_it_was(here, allocator):
    words = ("rollout", "dice_env:Dice", "--tasks", 3, "--rollouts", 4, "--continuations", 3, "--allocator", allocator)
    whole = run_json(*words, "--out", "whole.jsonl")
    content = (here / "whole.jsonl").read_bytes()
    (here / "cut.jsonl").write_bytes(content[: len(content) * 2 // 3])
    resumed = run_json(*words, "--out", "cut.jsonl", "--resume")
    changing = ("seconds", "file", "tokens sampled", "tokens read")
    assert {k: v for k, v in resumed.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }
    first, second = ([list(tree.nodes) for tree in read_trees(here / name)] for name in ("whole.jsonl", "cut.jsonl"))
    assert first == second


def test_wrong_ways_to_go_on_are_named(here):
    assert "needs --out FILE" in one_line_error(run("rollout", "dice_env:Dice", "--resume"))
    run("rollout", "dice_env:Dice", "--tasks", 2, "--out", "t.jsonl")
    other = one_line_error(run("rollout", "dice_env:Dice", "--tasks", 2, "--seed", 5, "--out", "t.jsonl", "--resume"))
    assert "was grown from another seed" in other and "options" in other
    tasks = ["--option", 'tasks=[{"goal": 40}]', "--tasks", 1]
    run("rollout", "dice_env:Dice", *tasks, "--out", "o.jsonl")
    forgotten = one_line_error(run("rollout", "dice_env:Dice", "--tasks", 1, "--out", "o.jsonl", "--resume"))
    assert "another task (" in forgotten and "40} there" in forgotten and "9} here" in forgotten
    assert "go on with the environment, options and seed that it was begun with" in forgotten
    assert "'--allocator'" in one_line_error(run("rollout", "dice_env:Dice", "--allocator", "nowhere"))
    kept = (here / "t.jsonl").read_bytes()
    for much in (-1, 0):
        words = ["--step-seconds", much, "--overwrite", "--out", "t.jsonl"]
        assert "'--step-seconds'" in one_line_error(run("rollout", "dice_env:Dice", *words))
        assert (here / "t.jsonl").read_bytes() == kept, "what is refused touches no file"
    assert run("rollout", "dice_env:Dice", "--overwrite", "--out", "t.jsonl", "--tasks", 3).exit_code == 0
    assert len(read_trees(here / "t.jsonl")) == 3


def test_without_out_no_file_is_overwritten_and_the_next_command_is_named(here):
    for name in ("trees.jsonl", "trees-2.jsonl", "trees-3.jsonl"):
        result = run("rollout", "dice_env:Dice", "--tasks", 1, "--rollouts", 1)
        assert f"Read it: {own_command('trees', name)} --credit rtmc" in result.stdout
        assert (here / name).exists()


def test_the_bundled_demonstrator_solves_every_task(here):
    words = ["--tasks", 6, "--rollouts", 2, "--option", "kind=equation", "--option", "operations_per_call=1"]
    summary = run_json("rollout", MATH, "--agent", "scripted", *words)
    assert (summary["success"], summary["solved"], summary["failed"]) == (1.0, 1.0, 0)
    trees = read_trees(here / "trees.jsonl")
    assert len({tree.task_id for tree in trees}) == 6
    assert all(tree.task["kind"] == "equation" for tree in trees)


@pytest.mark.parametrize("agent", ["random", "own_agent:Holder"])
def test_every_task_of_a_list_has_one_tree_whoever_acts(here, agent):
    rows = [{"id": f"t{n}", "question": f"{n} + 1", "reference": str(n + 1)} for n in range(9)]
    (here / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["rollout", MATH, "--option", "tasks=rows.jsonl", "--agent", agent, "--rollouts", 1]
    agent_file = "class Holder:\n    def act(self, contexts):\n        return ['1'] * len(contexts)\n"
    (here / "own_agent.py").write_text(agent_file)
    run_json(*words, "--tasks", 9)
    assert sorted(tree.task_id for tree in read_trees(here / "trees.jsonl")) == [row["id"] for row in rows]
    assert "has only 9 different tasks for this, and 10 are needed" in one_line_error(run(*words, "--tasks", 10))
    (here / "rows.jsonl").write_text(json.dumps(rows[0]))
    assert run_json(*words)["trees"] == 1, "by default, all that there are"


@pytest.mark.parametrize("env_id", [MATH, "agentenv/SearchQA-v0"])
def test_a_sloppy_demonstrator_slips_in_some_episodes_and_repeats_itself_by_seed(here, env_id):
    words = ["--agent", "sloppy", "--tasks", 6, "--rollouts", 6, "--continuations", 4, "--seed", 2]
    summary = run_json("rollout", env_id, *words, "--out", "a.jsonl")
    assert 0.1 < summary["success"] < 0.95 and summary["failed"] == 0
    assert any(
        len({tree.succeeded(end) for end in ends}) > 1 for tree in read_trees("a.jsonl") if (ends := tree.leaves())
    )
    run_json("rollout", env_id, *words, "--out", "b.jsonl")
    run_json("rollout", env_id, *words[:-1], 3, "--out", "c.jsonl")
    first, again, other = ([[n.action for n in tree.nodes] for tree in read_trees(f"{x}.jsonl")] for x in "abc")
    assert first == again != other


def test_many_episodes_are_grown_in_parts_and_none_is_lost(here):
    summary = run_json("rollout", "dice_env:Dice", "--tasks", 5, "--rollouts", 100, "--out", "many.jsonl")
    trees = read_trees(here / "many.jsonl")
    assert [tree.num_rollouts for tree in trees] == [100] * 5
    assert len({tree.metadata["seed"] for tree in trees}) == 5
    assert summary["nodes"] == sum(map(len, trees))


@pytest.mark.model
def test_a_model_acts_and_its_tokens_are_in_the_file(here):
    from tiny_chat import tiny

    model, tokenizer = tiny()
    model.save_pretrained(here / "model")
    tokenizer.save_pretrained(here / "model")
    words = ["--tasks", 2, "--rollouts", 2, "--max-action-tokens", 6, "--option", "max_steps=2"]
    summary = run_json("rollout", MATH, "--agent", here / "model", *words, "--temperature", 0.5)
    actions = [n.action for t in read_trees(here / "trees.jsonl") for n in t.nodes if n.action is not None]
    assert summary["nodes"] == len(actions) + 2
    lengths = [(len(action.token_ids or ()), len(action.logprobs or ())) for action in actions]
    assert all(1 <= tokens == logprobs <= 6 for tokens, logprobs in lengths)


def test_tasks_of_a_list_come_once_each_and_held_out_ones_never():
    tasks = [{"question": f"{n} + 1", "reference": str(n + 1)} for n in range(3)]
    choice = choose_env(MATH, [f"tasks={json.dumps(tasks)}"])
    held_out = sample_tasks(choice, 1, seed=0)
    rest = sample_tasks(choice, 5, seed=0, exclude=held_out, least=1)
    assert len(rest) == 2 and not set(rest) & set(held_out)
    with pytest.raises(TaskError, match="only 3 different tasks"):
        sample_tasks(choice, 4, seed=0)


@pytest.mark.parametrize("tasks", [None, [{"goal": goal} for goal in range(40)]])
def test_drawing_tasks_opens_no_sandbox_and_draws_what_an_episode_would(tasks):
    class Costly(ToolEnv):
        class Task(Task):
            goal: int

        def sample_task(self):
            return self.Task(goal=int(self.np_random.integers(40)))

        def make_sandbox(self) -> Sandbox | None:
            raise AssertionError

        def start(self, task: Any) -> str:
            raise AssertionError

    class Cheap(Costly):
        def make_sandbox(self):
            return None

        def start(self, task):
            return ""

        def reset(self, **options):  # another reset than that of Env is called
            return super().reset(**options)

    options = {"tasks": tasks} if tasks else {}
    costly, cheap = (sample_tasks(EnvChoice("c", kind, options), 12, seed=3) for kind in (Costly, Cheap))
    assert len(costly) == 12
    assert list(costly) == list(cheap)


def test_an_environment_with_one_task_gives_it_as_often_as_asked(here):
    tasks = sample_tasks(choose_env("dice_env:Dice"), 4, seed=0)
    assert [task.goal for task in tasks.values()] == [9] * 4


def test_no_file_is_replaced_unless_it_is_ours_and_that_was_asked_for(tmp_path):
    words = ("rollout", MATH, "--agent", "random", "--tasks", 1, "--rollouts", 1, "--out")
    mine, trees = tmp_path / "mine.jsonl", tmp_path / "t.jsonl"
    mine.write_text("my notes\n")
    for more in ((), ("--overwrite",)):
        line = one_line_error(run(*words, mine, *more))
        assert "'--out'" in line and "must be a trees file" in line
        assert mine.read_text() == "my notes\n"
    assert run(*words, trees).exit_code == 0
    before = trees.read_bytes()
    line = one_line_error(run(*words, trees))
    assert "exists: --resume goes on with it, --overwrite replaces it" in line
    assert trees.read_bytes() == before
    assert run(*words, trees, "--seed", 5, "--overwrite").exit_code == 0
    assert trees.read_bytes() != before
    assert "'--out'" in one_line_error(run(*words, mine, "--resume"))
