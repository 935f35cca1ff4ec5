"""TRACE in the loop: budgets of prompts and of prefixes, what its predictor reads and learns, what it never touches."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, Digits, Flaky, trainer

from agentenv.credit import TraceAllocator
from agentenv.credit.predictor import prefix_at
from agentenv.errors import SandboxError
from agentenv.stats import EpisodeStats, episodes
from agentenv.trainers.batches import micro_batches
from agentenv.trainers.layout import lay_out
from agentenv.trainers.run_folder import read_metrics

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Knows:
    """Says of every task what it was told, and remembers what it was asked and what it learned."""

    def __init__(self, success):
        self.success, self.asked, self.learned = success, [], []
        self.reads_hidden = False

    def predict(self, prefixes):
        self.asked.append(prefixes)
        return np.array([self.success(prefix) for prefix in prefixes])

    def update(self, prefixes, targets, weights=None):
        self.learned.append((prefixes, targets, weights))


def one_generation(tmp_path, tasks=4, **options):
    model, tokenizer = random_model()
    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": tasks, **options}
    run = trainer(model, tokenizer, tmp_path, **settings)
    run.model.train()
    run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(tasks)])
    return run


def test_prompts_get_two_rollouts_or_more_or_none_then_prefixes_get_theirs(tmp_path):
    """t0 is decided, t1 nearly, t2 and t3 are open: so are their budgets, and every episode is accounted for."""
    known = {"t0": 1.0, "t1": 0.05, "t2": 0.5, "t3": 0.6}
    predictor = Knows(lambda prefix: known[prefix.task])
    run = one_generation(tmp_path, allocator=TraceAllocator(predictor), num_rollouts=3, num_continuations=2)
    full = {tree.task_id: tree.metadata["num_rollouts"] for tree in run.last_trees}
    assert sum(full.values()) == 12 and min(full.values()) >= 2
    assert "t0" not in full and full["t2"] > full.get("t1", 0)
    assert sum(tree.num_rollouts for tree in run.last_trees) == 12 + 8
    roots, prefixes = predictor.asked[:2]
    assert [prefix.depth for prefix in roots] == [0] * 4
    assert all(prefix.depth > 0 for prefix in prefixes)
    assert len(predictor.learned) == 1  # once, of whole trees
    learned = Counter(prefix.task for prefix in predictor.learned[0][0])
    assert learned == {tree.task_id: len(tree) - len(tree.leaves()) for tree in run.last_trees}
    assert sum(w for p, _, w in zip(*predictor.learned[0], strict=True) if p.depth == 0) == 20


@pytest.mark.parametrize("options", [{}, {"staleness": 1}])
def test_prompts_are_chosen_among_candidates(tmp_path, options):
    """Of 4 tasks per generation and 3 candidates for each, those that are undecided get the budget of 4."""
    undecided = {f"t{i}" for i in range(0, 32, 4)}
    predictor = Knows(lambda prefix: 0.5 if prefix.task in undecided else 1.0)
    model, tokenizer = random_model()
    allocator = TraceAllocator(predictor)
    run = trainer(
        model, tokenizer, tmp_path, allocator=allocator, candidates=3, num_rollouts=4, max_steps=2, seed=3, **options
    )
    run.train()
    asked = [prefixes for prefixes in predictor.asked if {prefix.depth for prefix in prefixes} == {0}]
    assert [len({prefix.task for prefix in prefixes}) for prefixes in asked] == [12, 12]
    assert {prefix.task for prefix in asked[0]} != {prefix.task for prefix in asked[1]}
    assert {tree.task_id for tree in run.last_trees} == undecided & {prefix.task for prefix in asked[-1]}
    assert sum(tree.metadata["num_rollouts"] for tree in run.last_trees) == 16
    assert sum(tree.num_rollouts for tree in run.last_trees) == 16 + 8
    (first, _) = [log for log in read_metrics(tmp_path) if "loss" in log]
    assert first["allocator/opened"] == len(undecided & {prefix.task for prefix in asked[0]}) / 12
    total = run._stats["train"].values() if run._stats["train"] else []
    assert all(stats.trees == 1 for stats in total)


def test_every_tree_counts_where_there_are_more_trees_than_tasks(tmp_path):
    """A budget of 4 rollouts for each of 4 tasks opens 8 candidates at two rollouts each."""
    predictor = Knows(lambda prefix: 0.5)
    run = one_generation(
        tmp_path, allocator=TraceAllocator(predictor, root_maximum=2), candidates=4, num_rollouts=4, num_continuations=0
    )
    assert len(run.last_trees) == 8
    (stats,) = [sum(run._stats["train"].values(), EpisodeStats())]
    assert (stats.roots.episodes, stats.trees) == (16, 8)


@pytest.mark.parametrize("allocator", ["even", "random"])
def test_candidates_need_an_allocator_that_chooses_among_tasks(tmp_path, allocator):
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match=rf"candidates must be 1 with allocator='{allocator}', got 2"):
        trainer(model, tokenizer, tmp_path, allocator=allocator, candidates=2)
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        trainer(model, tokenizer, tmp_path, allocator="trace", candidates=0)


@pytest.mark.parametrize("allocator", ["even", TraceAllocator()])
def test_a_predictor_that_nobody_would_ask_is_refused(tmp_path, allocator):
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match=r"predictor must be 'text' with allocator=.*, got 'hidden'"):
        trainer(model, tokenizer, tmp_path, allocator=allocator, predictor="hidden")


def test_an_agent_that_shows_no_hidden_states_is_refused(tmp_path):
    class Deaf:
        def act(self, contexts):
            raise AssertionError(contexts)

    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, allocator="trace", predictor="hidden", agent=lambda *_: Deaf())
    with pytest.raises(ValueError, match="predictor must be 'text' with Deaf as agent"):
        run.train()


def test_a_pool_is_no_larger_than_the_tasks(tmp_path):
    predictor = Knows(lambda prefix: 0.5)
    run = one_generation(tmp_path, allocator=TraceAllocator(predictor), candidates=100)
    assert len(predictor.asked[0]) == len({prefix.task for prefix in predictor.asked[0]}) == len(TASKS)
    assert sum(tree.metadata["num_rollouts"] for tree in run.last_trees) == 12


def test_what_is_logged(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, allocator="trace", max_steps=3)
    run.train()
    logs = [m for m in read_metrics(tmp_path) if "loss" in m]
    for log in logs:
        assert log["allocator/root_share"] == pytest.approx(12 / 20)
        assert 0 <= log["effective_ratio"] <= 1 and 0 < log["allocator/opened"] <= 1
        assert {"predictor/brier", "predictor/calibration_error"} <= set(log)
        assert {f"predictor/calibration_error/depth_{d}" for d in (0, 1, "2-3")} <= set(log)
    assert logs[0]["predictor/brier"] == pytest.approx(0.25)  # it said one half of everything


def test_the_effective_ratio_is_the_share_of_trees_with_both_outcomes(tmp_path):
    run = one_generation(tmp_path, allocator="trace", num_rollouts=4)
    mixed = [len({tree.succeeded(leaf) for leaf in tree.leaves()}) == 2 for tree in run.last_trees]
    assert run._metrics["train"]["effective_ratio"] == [np.mean(mixed)]


@pytest.mark.parametrize("allocator", ["trace", "trace_unseen"])
def test_predictions_never_enter_an_advantage(tmp_path, allocator):
    """For the same trees, credit, weights and batch are the same whatever was predicted."""
    run = one_generation(tmp_path, allocator=allocator, num_rollouts=4, num_continuations=4)

    def trained():
        rows = lay_out(run.last_trees)
        micro = micro_batches(run._collate(rows, run._credit(rows)))
        return {
            name: torch.cat([one[name].clone() for one in micro])
            for name in ("advantages", "tool_mask", "old_per_token_logps")
        }

    before = trained()
    assert before["advantages"].any()
    rng = np.random.default_rng(0)
    run._sampling._allocator.predictor = Knows(lambda prefix: rng.random())
    run._sampling._allocator.learn(run.last_trees)
    assert all(torch.equal(before[name], after) for name, after in trained().items())


def test_weights_fit_the_allocator_unless_they_are_given(tmp_path):
    model, tokenizer = random_model()
    chosen = {
        name: trainer(model, tokenizer, tmp_path, allocator=name).args.step_weights
        for name in ("even", "random", "trace", "trace_unseen")
    }
    assert chosen == {"even": "occupancy", "random": "occupancy", "trace": "graph", "trace_unseen": "occupancy"}
    assert trainer(model, tokenizer, tmp_path, allocator="trace", step_weights="counts").args.step_weights == "counts"


# ---------------------------------------------------------------------- hidden states


def test_hidden_states_are_those_of_the_policy_at_step_boundaries(tmp_path):
    run = one_generation(tmp_path, allocator="trace", predictor="hidden", num_rollouts=4, num_continuations=4)
    read, compared = run._sampling._allocator.read, 0
    for tree in run.last_trees:
        for node in range(len(tree)):
            prefix = read(tree, node)
            if not tree.children(node):
                assert prefix.hidden is None
                continue
            with torch.no_grad():
                ids = torch.tensor([list(tree.prompt_token_ids(node))])
                whole = run.model.eval()(input_ids=ids, output_hidden_states=True)
            np.testing.assert_allclose(prefix.hidden, whole.hidden_states[-1][0, -1].numpy(), atol=2e-5)
            compared += 1
    assert compared > 20


def test_hidden_states_cost_no_forward_pass(tmp_path):
    """The same trees, and the model is called as often, whether the predictor reads text or hidden states."""

    def calls(predictor):
        counted = []
        knows = Knows(lambda prefix: 0.5)
        knows.reads_hidden = predictor == "hidden"
        allocator = TraceAllocator(knows)
        model, tokenizer = random_model()
        model.register_forward_hook(lambda *_: counted.append(1))
        run = trainer(model, tokenizer, tmp_path / predictor, allocator=allocator, max_steps=2)
        run.train()
        known = [prefix.hidden is not None for prefix in knows.learned[-1][0]]
        return len(counted), all(known), [list(tree.nodes) for tree in run.last_trees]

    text, hidden = calls("text"), calls("hidden")
    assert (text[0], text[2]) == (hidden[0], hidden[2])
    assert hidden[1] and not text[1]


def test_listening_ends_with_training(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, allocator="trace", predictor="hidden", max_steps=1)
    run.train()
    assert not any(module._forward_hooks for module in model.modules())
    run.train()  # and begins again


# ---------------------------------------------------------------------- edges


def test_broken_tasks_are_counted_and_get_no_budget(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, env=Flaky, allocator="trace", rollout_retries=0, max_steps=3)
    run.train()
    logs = [log for log in run.state.log_history if "loss" in log]
    assert sum(log["tree/failed"] for log in logs) > 0
    assert np.isfinite([log["loss"] for log in logs]).all()


class Unreachable(Digits):
    """Nothing can be reset."""

    def start(self, task):
        msg = "no machine"
        raise SandboxError(msg)


def test_tasks_that_cannot_be_begun_are_failures(tmp_path):
    run = one_generation(tmp_path, allocator="trace", env=Unreachable, rollout_retries=0)
    assert len(run.last_trees) == 4
    assert run._metrics["train"]["tree/failed"] == [4.0]


class Greedy:
    """Asks for too much."""

    def __init__(self, counts):
        self.counts = counts

    def roots(self, trees, budget, rng):
        return self.counts

    def __call__(self, trees, budget, rng):
        return []


@pytest.mark.parametrize(("counts", "message"), [([9, 9, 9, 9], "at most 12 in all"), ([-1, 2, 2, 2], "at least 0")])
def test_budgets_of_prompts_are_checked(tmp_path, counts, message):
    with pytest.raises(ValueError, match=rf"roots of .*Greedy must return counts .*{message}"):
        one_generation(tmp_path, allocator=Greedy(counts))


def test_any_allocator_may_choose_prompts(tmp_path):
    run = one_generation(tmp_path, allocator=Greedy([1, 0, 3, 0]))
    assert [(t.task_id, t.num_rollouts) for t in run.last_trees] == [("t0", 1), ("t2", 3)]
    assert [task["id"] for task in TASKS[:4]] == ["t0", "t1", "t2", "t3"]


class Refilling(Greedy):
    """Asks for more in rounds, and remembers how many episodes there were at each."""

    def __init__(self, *rounds):
        super().__init__(rounds[0])
        self.rounds, self.seen = list(rounds[1:]), []

    def refill(self, trees, rng):
        self.seen.append([len(episodes(tree)) for tree in trees])
        return self.rounds.pop(0) if self.rounds else [0] * len(trees)


def test_an_allocator_may_ask_for_more_episodes_until_it_has_enough(tmp_path):
    rule = Refilling([2, 0, 1, 0], [0, 3, 0, 0], [1, 0, 0, 0])
    run = one_generation(tmp_path, allocator=rule)
    assert [(t.task_id, t.num_rollouts) for t in run.last_trees] == [("t0", 3), ("t1", 3), ("t2", 1)]
    assert rule.seen == [[2, 0, 1, 0], [2, 3, 1, 0], [3, 3, 1, 0]]


def test_what_an_allocator_asks_for_later_is_checked_too(tmp_path):
    with pytest.raises(ValueError, match=r"roots of .*Refilling must return counts .*at most 12 in all"):
        one_generation(tmp_path, allocator=Refilling([2, 0, 1, 0], [13, 0, 0, 0]))


def test_prefixes_say_what_the_policy_read(tmp_path):
    run = one_generation(tmp_path, allocator="trace")
    tree = run.last_trees[0]
    assert tuple(prefix_at(tree, 0).token_ids) == tuple(tree.prompt_token_ids(0)) != ()
    assert prefix_at(tree, tree.leaves()[0]).token_ids == ()
