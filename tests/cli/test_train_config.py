"""Runs described by a file: what goes before what, what is refused, and what a dry run says."""

import re

import pytest
from cli_runs import one_line_error, run

from agentenv.cli.train_config import _number

pytestmark = pytest.mark.model

LETTERS = """
env_id: dice_env:Letters
model: {model}
tasks_per_step: 2
tasks: 8
rollouts: 3
eval-tasks: 0
max_action_tokens: 6
learning_rate: 1e-3      # text by the rules of YAML, a number by common sense
steps: 1
beta: 0.0
weight_decay: 1e-2
"""


@pytest.fixture
def model(here):
    from tiny_chat import tiny

    model, tokenizer = tiny()
    model.save_pretrained(here / "model")
    tokenizer.save_pretrained(here / "model")
    return here / "model"


@pytest.fixture
def config(here, model):
    path = here / "run.yaml"
    path.write_text(LETTERS.format(model=model))
    return path


def planned(*words):
    done = run("train", *words, "--dry-run")
    assert done.exit_code == 0, done.stderr
    return " ".join(done.stdout.split())


def test_the_command_line_goes_before_the_file_and_a_dry_run_says_what_would_run(here, config):
    said = planned(config)
    assert "2 trees of 3 full episodes and 0 continuations: 6 episodes" in said
    assert "learning rate 0.001" in said
    assert "rtmc_advantages, steps weighed by occupancy; continuations by even" in said
    assert "at most 6 in an action" in said
    assert "weights" in said
    assert "on the CPU, in this process" in said
    assert not (here / "runs").exists(), "a dry run leaves nothing"
    said = planned(config, "--rollouts", 5, "--credit", "rloo", "--continuations", 1, "--allocator", "trace")
    assert "2 trees of 5 full episodes and 1 continuations: 12 episodes" in said
    assert "rloo_advantages, steps weighed by graph; continuations by trace" in said
    said = planned(config, "--credit", "sr_ppo", "--set", "k=8", "--rollouts", 1)
    assert "sr_ppo: k = 8" in said
    said = planned(config, "--credit", "closed_loop", "--continuations", 1)
    assert "closed_loop: continuations where the critic is undecided; rtmc_advantages gives the credit" in said


def test_keyword_options_of_file_and_command_line_are_merged(here, config):
    config.write_text(config.read_text() + "credit_option:\n  discount: 0.5\n  prior_count: 1\n")
    done = run("train", config, "--credit-option", "discount=1.0")
    assert done.exit_code == 0, done.stderr
    (folder,) = (here / "runs").iterdir()
    written = (folder / "run.json").read_text()
    assert "prior_count" in written
    assert "0.5" not in written.partition("estimator")[2][:200]
    assert '"weight_decay": 0.01' in written


@pytest.mark.parametrize(
    ("more", "words", "message"),
    [
        ("rollout: 3\n", [], "no option or field of TreeConfig is named 'rollout'; did you mean 'rollouts'?"),
        ("k: 3\n", [], "no option or field of TreeConfig is named 'k'"),
        ("max_steps: 3\n", [], "max_steps is given by --steps"),
        ("resume: true\n", [], "resume belongs on the command line"),
        ("- a\n", [], "parsing a block mapping"),
        ("steps: 2\n", [], "'steps' is given twice"),
        ("weight-decay: 1.0\n", [], "weight_decay is given twice"),
        ("model_init_kwargs: {a: 1, a: 2}\n", [], "'a' is given twice"),
        ("", ["--set", "beta"], "must be KEY=VALUE, got 'beta'"),
        ("", ["--set", "learning_rate=1"], "learning_rate is given by --learning-rate"),
        ("", ["--set", "loss_type=grpo", "--continuations", 1], "num_continuations must be 0 with loss_type='grpo'"),
        ("", ["--credit", "sr_ppo", "--allocator", "trace"], "sr_ppo takes no --credit-option and no --allocator"),
        ("", ["--predictor", "hidden"], "must be 'text' with --allocator even, which predicts nothing"),
        ("", ["--credit", "closed_loop"], "with closed_loop"),
        ("", ["--credit", "closed_loop", "--continuations", 1, "--set", "k=8"], "k must be left out with closed_loop"),
        ("", ["--credit", "sr_ppo", "--rollouts", 1, "--set", "critic_guard=off"], "must be True or False, got 'off'"),
        ("eval_rollouts: 2.5\n", [], "eval_rollouts must be an integer, got 2.5"),
        ("", ["--learning-rate", "inf"], "learning_rate must be at least 0 and finite, got inf"),
        ("", ["--model", "nowhere"], "must be a model's folder, NAME/NAME on the hub, or tiny"),
        ("", ["--model", "tiny"], "'--model': dice_env:Letters has no demonstrations"),
        ("rollouts: many\n", [], "'--rollouts': Input should be a valid integer"),
    ],
)
def test_what_cannot_be_run_is_named(config, more, words, message):
    text = config.read_text()
    config.write_text(text.replace("rollouts: 3\n", "") + more if more.startswith("rollouts") else text + more)
    done = run("train", config, *words, "--dry-run")
    assert done.exit_code == 2, done.stdout
    assert message in " ".join(done.stderr.split()).replace("│ ", "")


def test_numbers_that_yaml_takes_for_text_are_numbers_at_any_depth():
    given = {"lr_scheduler_kwargs": {"min_lr": "1e-6", "name": "e-6"}, "rates": ["1e-4", 2, ["-3E5"]]}
    assert _number(given) == {"lr_scheduler_kwargs": {"min_lr": 1e-6, "name": "e-6"}, "rates": [1e-4, 2, [-3e5]]}


@pytest.mark.parametrize(
    ("content", "message"), [("", "must hold a mapping"), ("steps: 3", "env_id must name an environment")]
)
def test_a_file_must_name_an_environment(here, content, message):
    (here / "x.yml").write_text(content)
    done = run("train", here / "x.yml")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert run("train", here / "none.yaml").exit_code == 2


@pytest.mark.slow
def test_a_tiny_model_is_made_on_the_spot(here, monkeypatch):
    monkeypatch.setattr("agentenv.cli.training._IMITATED", 24)
    done = run("train", "agentenv/MathVerifier-v0", "--model", "tiny", "--dry-run", "--tasks", 4, "--tasks-per-step", 2)
    assert done.exit_code == 0, done.stderr
    assert "parameters in float32" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "tiny", "--set", "use_vllm=true"],
            "with use_vllm=True, .* made in memory: save_pretrained it",
        ),
        (["--model", "tiny", "--set", "beta=0.1"], "with beta=0.1, whose reference is read from there"),
        (["--set", "use_vllm=true"], r"use_vllm=True needs vllm: .*\[vllm\]"),
        (["--set", "use_vllm=true", "--agent", "vllm:http://127.0.0.1:9"], "'--agent': must be left out with use_vllm"),
        (["--set", "candidates=4"], "candidates must be 1 with allocator='even', got 4"),
        (["--set", 'report_to=["wandb"]'], "requires wandb to be installed"),
    ],
    ids=lambda value: str(value[-1]).partition(":")[0] if isinstance(value, list) else "",
)
def test_a_dry_run_refuses_what_the_run_refuses_by_the_same_words(here, config, words, message):
    told = [" ".join(one_line_error(run("train", config, *words, *more)).split()) for more in (["--dry-run"], [])]
    assert told[0] == told[1] and re.search(message, told[0]), told
    assert not (here / "runs").exists() or not any((here / "runs").rglob("*.json"))


def test_a_dry_run_of_a_resumption_compares_its_settings(here, config):
    words = ["train", config, "--run-folder", here / "run"]
    assert run(*words).exit_code == 0
    before = sorted((here / "run").rglob("*"))
    again = [*words, "--resume", "--dry-run", "--steps", 2]
    assert run(*again).exit_code == 0
    assert "num_rollouts is 3 in the run, 2 now" in one_line_error(run(*again, "--rollouts", 2))
    assert sorted((here / "run").rglob("*")) == before, "a dry run leaves nothing"
