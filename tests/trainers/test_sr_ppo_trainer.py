"""SRPPOTrainer: credit of tokens by hand, the critic apart from the policy, exact resume, the closed loop, guards."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_chat import random_model
from trainer_env import TASKS, Digits, Flaky

from agentenv import EpisodeTree, TreeArrays
from agentenv.agents import TransformersAgent
from agentenv.credit import passk_advantages, sr_ppo_advantages
from agentenv.credit.passk_tree import passk_values
from agentenv.errors import VerifierError
from agentenv.trainers import SRPPOConfig, SRPPOTrainer
from agentenv.trainers.batches import micro_batches
from agentenv.trainers.critic import trained_prefixes
from agentenv.trainers.layout import lay_out
from agentenv.trainers.run_folder import read_metrics
from agentenv.trainers.sr_ppo_credit import Belief, episode_credit, success_of_others, totals_of
from agentenv.types import Action

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def config(folder, **options) -> SRPPOConfig:
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_action_tokens": 6,
        "learning_rate": 1e-2,
        "critic_warmup": 8,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return SRPPOConfig(**given | options)


LOOP = {"closed_loop": True, "num_rollouts": 2, "num_continuations": 2}


def trainer(folder, *, made=None, env: Any = Digits, **options) -> Any:
    model, tokenizer = made or random_model()
    extra = {
        name: options.pop(name) for name in ("eval_tasks", "peft_config", "critic_model", "agent") if name in options
    }
    args = config(folder, **options)
    return SRPPOTrainer(model, args, env=env, train_tasks=TASKS, processing_class=tokenizer, **extra)


def metrics_of(run, *names):
    logs = [log for log in run.state.log_history if "loss" in log]
    return [[log[name] for name in names] for log in logs]


# ---------------------------------------------------------------------- credit of tokens


def chain(tree, outcome, steps, start=1):
    """Adds an episode whose steps have so many tokens each; prompts grow by one token a step."""
    node, before = 0, (start,)
    for i, count in enumerate(steps):
        tokens = tuple(range(10 * i + 10, 10 * i + 10 + count))
        last = i == len(steps) - 1
        action = Action("x", token_ids=tokens, logprobs=(-0.1,) * count, prompt_token_ids=before)
        node = tree.add(node, action, reward=outcome * last, terminated=last)
        before = (*before, *tokens, 5)
    return node


def episodes(*specs):
    trees = []
    for outcome, steps in specs:
        trees.append(EpisodeTree(({"role": "user", "content": "go"},)))
        chain(trees[-1], outcome, steps)
    return trees


def test_by_hand():
    rows = lay_out(episodes((1.0, [2, 1]), (0.0, [1])))
    credit = episode_credit(rows, np.array([0.2, 0.5, 0.9, 0.6]), k=1, decay=0.0)
    assert credit.advantages[rows.trained].tolist() == pytest.approx([0.3, 0.4, 0.1, -0.6])
    assert rows.trained.tolist() == [[False, True, True, False, True], [False, True, False, False, False]]
    assert credit.values[0].tolist() == pytest.approx([0, 0.2, 0.5, 0, 0.9])


def test_an_episode_is_one_sequence_though_a_template_rewrote_its_history():
    """The second prompt drops a token of the first action, so that the episode is two rows."""
    tree = EpisodeTree(({"role": "user", "content": "go"},))
    one = tree.add(0, Action("x", token_ids=(3, 4), logprobs=(-0.1,) * 2, prompt_token_ids=(1, 2)), reward=0.0)
    last = Action("x", token_ids=(7, 8), logprobs=(-0.1,) * 2, prompt_token_ids=(1, 2, 3, 6))
    tree.add(one, last, reward=1.0, terminated=True)
    rows = lay_out([tree])
    assert len(rows) == 2
    p = np.array([0.1, 0.3, 0.6, 0.8])
    credit = episode_credit(rows, p, k=2, decay=0.5)
    whole = sr_ppo_advantages(p[None], [1.0], k=2, decay=0.5).advantages[0]
    assert credit.advantages[rows.trained].tolist() == pytest.approx(whole.tolist())


def test_a_fork_has_no_difference():
    tree = EpisodeTree(({"role": "user", "content": "go"},))
    chain(tree, 1.0, [1, 1])
    tree.add(1, Action("x", token_ids=(9,), logprobs=(-0.1,), prompt_token_ids=(1, 10, 5)), reward=0.0, terminated=True)
    rows = lay_out([tree])
    with pytest.raises(ValueError, match="independent episodes"):
        episode_credit(rows, np.zeros(3))


LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), LENGTHS), min_size=1, max_size=5),
    st.floats(1, 8),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_laws_of_token_credit(specs, k, decay, seed):
    """Differences sum to outcome - value; a critic that is constant within steps gives the credit of steps."""
    rows = lay_out(episodes(*specs))
    rng = np.random.default_rng(seed)
    arrays = rows.arrays
    at_nodes = rng.random(len(arrays))  # p before the step into each node
    _, nodes = trained_prefixes(rows)
    credit = episode_credit(rows, at_nodes[nodes], k=k, decay=decay)
    tree_of = arrays.tree_ids[rows.nodes]
    for number, (outcome, _) in enumerate(specs):
        own = rows.trained & (tree_of == number)
        first = np.flatnonzero((arrays.tree_ids == number) & ~arrays.is_root)[0]
        assert credit.differences[own].sum() == pytest.approx(outcome - passk_values(at_nodes[first], k), abs=1e-9)

    # the same, with one number per step
    lengths = [len(steps) for _, steps in specs]
    table, mask = np.zeros((len(specs), max(lengths))), np.zeros((len(specs), max(lengths)), dtype=bool)
    for number, length in enumerate(lengths):
        own = np.flatnonzero((arrays.tree_ids == number) & ~arrays.is_root)
        table[number, :length], mask[number, :length] = at_nodes[own], True
    for end in (0.0, 1.0):
        tokens = episode_credit(rows, at_nodes[nodes], k=k, decay=end)
        steps = sr_ppo_advantages(table, [outcome for outcome, _ in specs], mask, k=k, decay=end).advantages
        for number, length in enumerate(lengths):
            own = np.flatnonzero((arrays.tree_ids == number) & ~arrays.is_root)
            for turn in range(length):
                values = tokens.advantages[rows.trained & (rows.nodes == own[turn])]
                wanted = (
                    [steps[number, turn]] * len(values) if end else [0.0] * (len(values) - 1) + [steps[number, turn]]
                )
                np.testing.assert_allclose(values, wanted, atol=1e-9)
    # and passk_advantages of the tree, which is lambda 0 per step, reads p AT nodes
    at = np.zeros(len(arrays))
    inner = ~arrays.is_root
    at[arrays.parents[inner]] = at_nodes[inner]
    by_tree = passk_advantages(arrays, k=k, success=at).advantages
    local = sr_ppo_advantages(table, [outcome for outcome, _ in specs], mask, k=k).advantages
    np.testing.assert_allclose(by_tree[inner], local[mask], atol=1e-9)


# ---------------------------------------------------------------------- decay and k


def test_belief_goes_from_reinforce_to_the_settings(tmp_path):
    args = config(tmp_path, k=4, k_schedule="constant", decay=0.8)
    assert Belief(args)(0.0, np.zeros(0), 0) == {"decay": 1.0, "k": 1.0}
    assert Belief(args)(1.0, np.zeros(0), 0) == pytest.approx({"decay": 0.8, "k": 4.0})
    assert Belief(args)(0.5, np.zeros(0), 0) == pytest.approx({"decay": 0.9, "k": 2.5})
    off = config(tmp_path, k=4, k_schedule="constant", decay=0.8, critic_guard=False)
    assert Belief(off)(0.0, np.zeros(0), 0) == pytest.approx({"decay": 0.8, "k": 4.0})


def test_k_by_schedule_and_by_rule(tmp_path):
    args = config(tmp_path, k=16, k_schedule="geometric", k_final=1, max_steps=5)
    assert [Belief(args)(1.0, np.zeros(0), step)["k"] for step in range(5)] == pytest.approx([16, 8, 4, 2, 1])
    rule = Belief(config(tmp_path, k=8))
    assert rule(1.0, np.array([0.25, 0.25]), 0)["k"] == pytest.approx(np.log(0.5) / np.log(0.75))
    assert rule(1.0, np.array([0.7, 0.6]), 0)["k"] == 1
    assert rule(1.0, np.array([0.01]), 0)["k"] == 8


def test_the_success_of_others_leaves_a_tree_itself_out():
    arrays = TreeArrays.build(
        parents=[-1, 0, 0, -1, 3, -1, 5, -1, 7],
        rewards=[0, 1, 0, 0, 1, 0, 0, 0, 0],
        terminated=[False, True, True, False, True, False, True, False, False],
        tree_ids=[0, 0, 0, 1, 1, 2, 2, 3, 3],
        valid=[True] * 8 + [False],  # the last tree has a broken episode alone
    )
    totals = totals_of(arrays)
    assert totals == (2, 4)
    assert success_of_others(arrays, totals).tolist() == pytest.approx([1 / 2, 1 / 3, 2 / 3, 2 / 4])
    elsewhere = (totals[0] + 3, totals[1] + 6)  # of another process
    assert success_of_others(arrays, elsewhere).tolist() == pytest.approx([4 / 8, 4 / 9, 5 / 9, 5 / 10])
    one = TreeArrays.build(parents=[-1, 0], rewards=[0, 1], terminated=[False, True])
    assert success_of_others(one, totals_of(one)).tolist() == [1.0]  # there is no other


# ---------------------------------------------------------------------- the trainer


def test_one_generation_is_what_its_parts_say(tmp_path):
    """Advantages are those of the critic before it learned this generation; p comes from the policy that sampled."""
    run = trainer(tmp_path, eval_tasks=TASKS[:4], critic_guard=False, k_schedule="constant", k=2, layout="padded")
    torch.nn.init.normal_(run.critic.head[-1].weight)
    run.model.train()
    run.current_gradient_accumulation_steps = 2
    batch = run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(8)])
    rows = lay_out(run.last_trees)
    assert all(tree.num_rollouts == 1 for tree in run.last_trees)
    assert run.critic.updates == 2  # one generation of warm-up, and this
    credit = episode_credit(rows, run._success, k=2, decay=0.95)
    weights = np.ones(len(rows.arrays))
    again = rows.with_advantages(credit, weights, pad_token_id=0)
    trained = [micro["advantages"][micro["tool_mask"] > 0] for micro in micro_batches(batch)]
    wanted = again["advantages"][again["tool_mask"] > 0]
    assert torch.equal(torch.cat(trained).sort().values, wanted.sort().values)
    assert float(wanted.abs().max()) > 0.1
    assert len(run.record.entries) > 16


def test_a_critic_that_nothing_confirmed_is_no_baseline(tmp_path):
    """Credit is then the outcome less the mean outcome of the other prompts, whatever the critic says."""
    run = trainer(tmp_path, critic_warmup=0, layout="padded")
    run.model.train()
    run.current_gradient_accumulation_steps = 2
    run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(8)])
    rows = lay_out(run.last_trees)
    run._success = np.random.default_rng(0).random(len(run._success))  # an opinion on every token
    run._said = {"trust": 0.0}
    credit = run.token_credit(rows)
    row, place = np.nonzero(rows.trained)
    tree = rows.arrays.tree_ids[rows.nodes[row, place]]
    outcome = np.array([rows.arrays.succeeded[rows.arrays.tree_ids == t].any() for t in range(8)], dtype=float)
    wanted = outcome[tree] - success_of_others(rows.arrays, totals_of(rows.arrays))[tree]
    assert 0 < outcome.sum() < 8
    assert np.allclose(credit.advantages[row, place], wanted)
    run._said = {"trust": 1.0}
    assert not np.allclose(run.token_credit(rows).advantages[row, place], wanted)


def test_the_critic_is_in_nothing_of_the_policys(tmp_path):
    model, tokenizer = random_model()
    names = set(model.state_dict())
    run = trainer(tmp_path, made=(model, tokenizer), save_strategy="steps", save_steps=2, eval_tasks=TASKS[:4])
    run.train()
    assert set(run.model.state_dict()) == names
    assert not {id(p) for p in run.critic.head.parameters()} & {id(p) for p in run.model.parameters()}
    held = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not {id(p) for p in run.critic.head.parameters()} & held
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert set(saved) <= names
    assert (tmp_path / "checkpoint-2" / "agentenv_state" / "critic.pt").is_file()
    assert (tmp_path / "critic.png").read_bytes().startswith(b"\x89PNG")


NAMES = ["loss", "reward", "grad_norm", "critic/loss", "critic/brier", "critic/trust", "critic/decay", "critic/k"]


@pytest.mark.parametrize("own", [False, True])
def test_resuming_gives_the_same_metrics_as_not_stopping(tmp_path, own):
    def run_to(steps, **options):
        critic = {"critic_model": random_model(seed=1)[0]} if own else {}
        options_ = {"critic_record": 32, "critic_warmup": 16, **critic}
        run = trainer(tmp_path, max_steps=steps, save_strategy="steps", save_steps=3, **options_)
        run.train(**options)
        return run

    whole = run_to(5)
    resumed = run_to(5, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert metrics_of(resumed, *NAMES) == metrics_of(whole, *NAMES)
    for a, b in zip(whole.critic.head.parameters(), resumed.critic.head.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len({tuple(row) for row in metrics_of(whole, "critic/loss", "critic/brier")}) == 5


def test_the_closed_loop_forks_where_the_critic_says_and_resumes_exactly(tmp_path):
    def run_to(steps, **options):
        run = trainer(tmp_path, max_steps=steps, save_strategy="steps", save_steps=2, eval_tasks=TASKS[:4], **LOOP)
        run.train(**options)
        return run

    whole = run_to(3)
    arrays = TreeArrays.from_trees(whole.last_trees)
    assert (np.bincount(arrays.parents[~arrays.is_root])[1:] > 1).any()
    assert whole.last_trees[0].metadata["num_rollouts"] >= 2
    names = ["loss", "critic/loss", "predictor/brier", "allocator/root_share", "effective_ratio"]
    logged = metrics_of(whole, *names)
    assert np.isfinite(logged).all()
    resumed = run_to(3, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert metrics_of(resumed, *names) == logged
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["estimator"].endswith("rtmc_advantages")
    assert "TraceAllocator" in described["allocator"]


def test_trace_asks_this_critic_about_prompts_that_nobody_has_tried(tmp_path):
    run = trainer(tmp_path, **LOOP)
    torch.nn.init.normal_(run.critic.head[-1].weight, std=3)
    allocator: Any = run._stateful["allocator"]
    asked = []
    predict = allocator.predictor.predict

    def remember(prefixes):
        said = predict(prefixes)
        asked.append((prefixes, said))
        return said

    allocator.predictor.predict = remember
    run.model.train()
    run.current_gradient_accumulation_steps = 2
    run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(8)])
    roots = [(p, s) for prefixes, said in asked for p, s in zip(prefixes, said, strict=True) if p.depth == 0]
    assert all(p.token_ids for p, _ in roots)
    assert len({round(float(s), 6) for _, s in roots[:8]}) > 1
    grown = {tuple(tree.prompt_token_ids(0)) for tree in run.last_trees}
    assert grown <= {tuple(p.token_ids) for p, _ in roots}  # exactly what the policy then read


@pytest.mark.parametrize("options", [{}, LOOP], ids=["chains", "loop"])
def test_an_agent_of_ones_own_samples(tmp_path, options):
    """One that shows nothing of how it writes prompts: new tasks of the closed loop are predicted without tokens."""

    class Served:
        told = 0

        def __init__(self, model, tokenizer):
            self._inner = TransformersAgent(model, tokenizer, max_new_tokens=6)

        def update_weights(self, weights):
            assert dict(weights)
            self._inner.weights_changed()
            self.told += 1

        def act(self, contexts):
            return self._inner.act(contexts)

    made = []

    def serve(model, tokenizer):
        made.append(Served(model, tokenizer))
        return made[-1]

    run = trainer(tmp_path, agent=serve, **options)
    run.train()
    assert len(made) == 1 and made[0].told >= 3  # a warm-up and two generations
    assert run.first_log_ratio.largest < 1e-3


def test_the_critic_is_scored_on_held_out_tasks(tmp_path):
    run = trainer(tmp_path, eval_tasks=TASKS[:6], eval_strategy="steps", eval_steps=1)
    run.train()
    evaluated = [m for m in read_metrics(tmp_path) if "eval_success" in m]
    assert len(evaluated) == 2
    assert all(0 <= m["eval_critic/brier"] <= 1 for m in evaluated)
    trained = [m for m in read_metrics(tmp_path) if "critic/brier" in m]
    assert all({"critic/ece", "critic/auroc", "critic/k", "critic/decay", "critic/trust"} <= set(m) for m in trained)


@pytest.mark.parametrize(
    "options",
    [
        {"num_iterations": 2},
        {"gradient_checkpointing": True},
        {"loss_type": "dr_grpo"},
        {"loss_type": "grpo"},
        {"bf16": True},
        {"num_rollouts": 3},
        {"mask_truncated_completions": True},
        {"prompt_weighted": True, "k_schedule": "constant"},
        {"critic_warmup": 0, "critic_guard": False},
        {"steps_per_generation": 4},
        {"gradient_checkpointing": True, **LOOP},
        {"critic_epochs": 1, "critic_minibatches": 11},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.filterwarnings("ignore:before any update")  # bf16 in the loss, float32 in sampling
def test_trls_options_and_the_critics_work(tmp_path, options):
    run = trainer(tmp_path, **options)
    run.train()
    assert np.isfinite(metrics_of(run, "loss", "grad_norm")).all()
    assert all(np.isfinite(log["critic/loss"]) for log in run.state.log_history if "critic/loss" in log)
    assert run.critic.updates > (options.get("critic_warmup", 8) > 0)


def test_lora_with_the_critic_outside(tmp_path):
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    run = trainer(tmp_path, peft_config=adapter, save_strategy="steps", save_steps=2)
    run.train()
    assert np.isfinite(metrics_of(run, "loss", "critic/loss")).all()
    saved = load_file(tmp_path / "checkpoint-2" / "adapter_model.safetensors")
    assert saved
    assert all("lora" in name for name in saved)
    # it reads the policy with its adapter, not the model below
    rows = lay_out(run.last_trees)
    prefixes, _ = trained_prefixes(rows)
    states = run.critic._read(prefixes)
    with run.model.disable_adapter():
        assert not torch.allclose(states, run.critic._read(prefixes), atol=1e-6)


def test_broken_infrastructure_teaches_nothing(tmp_path):
    run = trainer(tmp_path, env=Flaky, rollout_retries=0)
    run.train()
    broken = [i for i, tree in enumerate(run.last_trees) if int(tree.task_id[1:]) % 3 == 0]
    rows = lay_out(run.last_trees)
    _, nodes = trained_prefixes(rows)
    assert broken
    assert not set(rows.arrays.tree_ids[nodes]) & set(broken)
    assert np.isfinite(metrics_of(run, "loss", "critic/loss")).all()


class Broken(Flaky):
    def respond(self, action):
        msg = "the verifier is down"
        raise VerifierError(msg)


@pytest.mark.parametrize("options", [{}, LOOP], ids=["chains", "loop"])
def test_a_generation_in_which_everything_broke_changes_nothing(tmp_path, options):
    run = trainer(tmp_path, env=Broken, rollout_retries=0, max_steps=1, **options)
    before = [p.detach().clone() for p in [*run.model.parameters(), *run.critic.head.parameters()]]
    run.train()
    after = [*run.model.parameters(), *run.critic.head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_critic_that_is_not_a_number_stops_training_before_the_policy_changes(tmp_path):
    run = trainer(tmp_path)
    before = [p.detach().clone() for p in run.model.parameters()]
    torch.nn.init.constant_(run.critic.head[-1].bias, float("nan"))
    with pytest.raises(FloatingPointError, match="critic's predictions must be finite"):
        run.train()
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0.5}, ["k must be at least 1", "0.5"]),
        ({"k": float("inf")}, ["k must be", "finite", "reachab"]),
        ({"k_final": 0}, ["k_final", "0"]),
        ({"k_schedule": "linear"}, ["k_schedule", "'linear'", "'adaptive'"]),
        ({"decay": 1.5}, ["decay", "1.5"]),
        ({"critic_learning_rate": 0.0}, ["critic_learning_rate", "0.0"]),
        ({"critic_learning_rate": float("nan")}, ["critic_learning_rate", "nan"]),
        ({"critic_warmup": -1}, ["critic_warmup", "-1"]),
        ({"critic_epochs": 0}, ["critic_epochs", "0"]),
        ({"critic_record": 8}, ["critic_record", "8"]),
        ({"num_continuations": 2}, ["num_continuations", "2", "closed_loop", "TreeTrainer"]),
        ({"closed_loop": True}, ["num_rollouts", "num_continuations", "closed_loop"]),
        ({**LOOP, "staleness": 1}, ["staleness must be 0 with closed_loop", "1"]),
        ({**LOOP, "k": 8.0}, ["k must be left out with closed_loop", "8.0"]),
        ({**LOOP, "critic_guard": False}, ["critic_guard must be left out with closed_loop", "False"]),
        ({"k_final": 2.0}, ["k_final must be left out with k_schedule='adaptive'", "2.0"]),
        ({"k": "many"}, ["k must be a number", "'many'"]),
        ({"critic_warmup": 8.5}, ["critic_warmup must be an integer", "8.5"]),
        ({"closed_loop": "no"}, ["closed_loop must be True or False", "'no'"]),
        ({"num_rollouts": 0}, ["num_rollouts", "at least 1"]),
        ({"k_schedule": "geometric", "max_steps": -1, "num_train_epochs": 1}, ["max_steps", "geometric"]),
    ],
)
def test_wrong_settings_are_named(tmp_path, options, words):
    with pytest.raises(ValueError) as caught:
        config(tmp_path, **options)
    assert all(word in str(caught.value) for word in words)


def test_a_critic_model_must_be_its_own_and_know_the_tokens(tmp_path):
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match="of the critic's own, got the policy"):
        trainer(tmp_path, made=(model, tokenizer), critic_model=model)
    small = random_model(seed=1)[0]
    small.resize_token_embeddings(100)
    with pytest.raises(ValueError, match=r"must know the policy's \d+ tokens, it knows 100"):
        trainer(tmp_path, made=(model, tokenizer), critic_model=small)
