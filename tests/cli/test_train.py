"""`agentenv train` and `agentenv demo`: they train, and leave a run folder that can be read and resumed."""

import json
import shlex
from pathlib import Path

import pytest
from cli_runs import one_line_error, run, run_json

pytestmark = pytest.mark.model

MATH = "agentenv/MathVerifier-v0"
SMALL = ["--tasks-per-step", 2, "--tasks", 8, "--rollouts", 2, "--continuations", 1, "--eval-tasks", 3,
         "--every", 1, "--max-action-tokens", 6, "--learning-rate", 1e-3]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def model(here):
    from tiny_chat import tiny

    model, tokenizer = tiny()
    model.save_pretrained(here / "model")
    tokenizer.save_pretrained(here / "model")
    return here / "model"


def metrics(folder, *names):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: line.get(name) for name in names} for line in lines if "success" in line or "eval_success" in line]


def test_a_run_its_folder_and_its_resumption(here, model):
    """Stopping after step 1 and resuming gives the metrics of not stopping."""
    whole = run("train", "dice_env:Letters", "--model", model, *SMALL, "--steps", 2, "--credit", "rloo")
    assert whole.exit_code == 0, whole.stderr
    folder = here / "runs" / "Letters-rloo"
    assert {path.name for path in folder.iterdir()} >= {
        "run.json", "metrics.jsonl", "trees", "curve.png", "checkpoint-1", "checkpoint-2",
    }  # fmt: skip
    assert "rloo_advantages" in json.loads((folder / "run.json").read_text())["estimator"]
    assert "step 2  success of held-out" in whole.stdout

    words = ["train", "dice_env:Letters", "--model", model, *SMALL, "--credit", "rloo", "--run-folder", here / "parts"]
    assert run(*words, "--steps", 1).exit_code == 0
    resumed = run(*words, "--steps", 2, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    names = ("step", "success", "eval_success", "loss", "credit/std", "episode/steps")
    expected = metrics(folder, *names)
    assert metrics(here / "parts", *names) == expected
    assert len(expected) == 5 and any(line["loss"] for line in expected)  # 3 measurements, 2 steps that learn

    summary = run_json(
        "rollout", "dice_env:Letters", "--agent", folder / "checkpoint-2", "--tasks", 2, "--max-action-tokens", 4
    )
    assert summary["trees"] == 2
    assert run_json("trees", folder / "trees" / "step_2.jsonl")[0]["episodes"] == 3


def test_held_out_tasks_are_never_trained_on(here, model):
    tasks = [{"question": f"{n} + 1", "reference": str(n + 1)} for n in range(6)]
    (here / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    words = ["--option", "tasks=tasks.jsonl", "--option", "max_steps=2", *SMALL, "--steps", 1, "--run-folder", "few"]
    trained = run("train", MATH, "--model", model, *words)
    assert trained.exit_code == 0, trained.stderr
    assert json.loads((here / "few" / "run.json").read_text())["train_tasks"] == 3
    result = run("train", MATH, "--model", model, *words[:-1], "none", "--eval-tasks", 5)
    assert result.exit_code == 2
    assert "'--tasks-per-step'" in result.stderr and "only 1 different tasks" in result.stderr


def test_too_few_tasks_are_told_before_a_model_is_made(here, monkeypatch):
    monkeypatch.setattr("agentenv.cli.training.load_model", lambda *_, **__: pytest.fail("a model was made"))
    words = ["train", MATH, "--model", "tiny", "--option", 'tasks=[{"question": "1 + 1", "reference": "2"}]']
    line = one_line_error(run(*words, "--eval-tasks", 0))
    assert "'--tasks-per-step'" in line and "only 1 different tasks" in line
    assert "'--eval-tasks'" in one_line_error(run(*words, "--eval-tasks", 2))


def test_steps_are_steps_in_all_and_changed_settings_are_refused(here, model):
    words = ["train", "dice_env:Letters", "--model", model, *SMALL, "--credit", "rloo", "--run-folder", here / "run"]
    assert run(*words, "--steps", 2).exit_code == 0
    config = (here / "run" / "run.json").read_text()
    again = run(*words, "--steps", 2, "--resume")
    assert again.exit_code == 0, again.stderr
    assert [line["step"] for line in metrics(here / "run", "step", "loss") if line["loss"] is not None] == [1, 2]

    changed = [*words[:-4], "--credit", "grpo", *words[-2:], "--steps", 3, "--rollouts", 3, "--resume"]
    refused = run(*changed)
    assert refused.exit_code != 0
    assert all(word in refused.stderr for word in ("estimator is", "rloo", "num_rollouts is 2 in the run, 3 now"))
    assert "--override" in refused.stderr and "Traceback" not in refused.stderr
    assert run(*changed, "--override").exit_code == 0
    assert (here / "run" / "run.json").read_text() == config
    assert json.loads((here / "run" / "run_step_2.json").read_text())["settings"]["num_rollouts"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--allocator", "evenly"], "'--allocator'"),
        (["--step-weights", "occupation"], "'--step-weights'"),
        (["--predictor", "oracle"], "'--predictor'"),
    ],
)
def test_names_that_there_are_not_are_refused(here, model, words, message):
    result = run("train", "dice_env:Letters", "--model", model, *SMALL, *words)
    assert result.exit_code == 2
    assert message in result.stderr and words[1] in result.stderr


def test_weights_and_allocator_reach_the_run(here, model):
    words = ["--allocator", "trace", "--step-weights", "counts", "--predictor", "hidden", "--steps", 1]
    words += ["--run-folder", here / "run"]
    result = run("train", "dice_env:Letters", "--model", model, *SMALL, *words)
    assert result.exit_code == 0, result.stderr
    described = json.loads((here / "run" / "run.json").read_text())
    assert described["allocator"] == "trace"
    assert described["settings"]["step_weights"] == "counts"
    assert described["settings"]["predictor"] == "hidden"
    assert [line["predictor/brier"] for line in metrics(here / "run", "predictor/brier", "loss") if line["loss"]]
    assert "weights='counts'" in described["estimator"]


@pytest.mark.slow
def test_the_quick_demo_runs_from_end_to_end(here):
    result = run("demo", "--quick")
    assert result.exit_code == 0, result.stderr
    folder = here / "runs" / "demo"
    assert (folder / "curve.png").stat().st_size > 1000
    assert "success on 8 held-out tasks" in result.stdout
    # The script's path stands before the command where the environment is not active.
    found = [line.split("agentenv ", 1)[1].split() for line in result.stdout.splitlines() if "agentenv " in line]
    assert [words[0] for words in found[-3:]] == ["view", "rollout", "play"]
    assert run(*found[-3]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["random"], "samples no tokens"),
        (["human"], "samples no tokens"),
        (["http://127.0.0.1:8000/v1"], "a vLLM server is vllm:URL"),
        (["other"], "its weights would stay as they are"),
        (["nothing"], "no such agent, and no such folder"),
        (["vllm:nowhere"], "no nowhere/config.json"),
        (["vllm:"], "no ./config.json"),
    ],
)
def test_what_cannot_sample_for_training_is_refused_by_name(here, model, words, told):
    (here / "other").mkdir()
    error = one_line_error(run("train", "dice_env:Letters", "--model", model, *SMALL, "--agent", *words))
    assert "'--agent'" in error and told in error and repr(words[0]) in error


MINE = """
from agentenv.agents import TransformersAgent

class Agent(TransformersAgent):
    def __init__(self, model, tokenizer, max_new_tokens=99, words=0):
        super().__init__(model, tokenizer, max_new_tokens=max_new_tokens)
        print(f"made for {max_new_tokens} tokens and {words} words")

def nothing(model, tokenizer):
    return None

it = object()
"""


def test_an_agent_of_ones_own_samples(here, model):
    (here / "mine.py").write_text(MINE)
    words = ["train", "dice_env:Letters", "--model", model, *SMALL, "--steps", 1, "--agent"]
    done = run(*words, "mine:Agent", "--agent-option", "words=3")
    assert done.exit_code == 0, done.stderr
    assert "made for 6 tokens and 3 words" in done.stdout
    assert "sampling by mine:Agent; updates on" in " ".join(run(*words, "mine:Agent", "--dry-run").stdout.split())
    for name, told in (
        ("mine:it", "must be a class, or a function, of a model and its tokenizer"),
        ("mine:Agnet", "mine has no 'Agnet'; did you mean 'Agent'?"),
        ("nobody:Agent", "No module named 'nobody'"),
        ("mine:nothing", "must make an agent, with act(contexts) -> actions; got None"),
    ):
        assert told in one_line_error(run(*words, name))
    assert "max_new_tokens is given by" in one_line_error(
        run(*words, "mine:Agent", "--agent-option", "max_new_tokens=4")
    )


def test_the_model_itself_may_be_named_as_what_samples_and_takes_no_options(here, model):
    words = ["train", "dice_env:Letters", "--model", model, *SMALL, "--agent", here / "other" / ".." / "model"]
    (here / "other").mkdir()
    planned = run(*words, "--dry-run")
    assert planned.exit_code == 0 and "sampling and updates" in planned.stdout, planned.stderr
    assert "needs --agent vllm:FOLDER|vllm:URL|module:Class" in one_line_error(
        run(*words, "--agent-option", "top_p=0.9")
    )


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("max_tokens=4", "max_tokens is given by --max-action-tokens"),
        ("history=template", "history is given by --set history=NAME"),
        ("top=1", "has no option 'top'"),
        ("top_p=0.9", "top_p must be left out, got 0.9"),
        ("engine=x", "has no option 'engine'"),
    ],
)
def test_options_of_the_sampler_are_those_of_vllm_that_training_does_not_set(here, model, word, told):
    words = ["--model", model, *SMALL, "--agent", "vllm:http://127.0.0.1:9", "--agent-option", word]
    assert told in one_line_error(run("train", "dice_env:Letters", *words))


def test_a_server_samples_by_plan_but_not_ahead_of_training(here, model):
    words = ["train", "dice_env:Letters", "--model", model, *SMALL, "--agent", "vllm:http://127.0.0.1:9", "--dry-run"]
    planned = run(*words)
    assert planned.exit_code == 0 and "sampling by vLLM (http://127.0.0.1:9)" in planned.stdout, planned.stderr
    planned = run(*words, "--credit", "sr_ppo", "--continuations", 0)
    assert planned.exit_code == 0 and "sampling by vLLM" in planned.stdout, planned.stderr
    assert "left out with staleness" in one_line_error(run(*words, "--set", "staleness=1"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("runs/none/checkpoint-3", "no such folder"),
        ("./qwen", "no such folder"),
        ("../qwen", "no such folder"),
        ("dice_env.py", "that is a file"),
    ],
)
def test_what_can_be_no_name_on_the_hub_is_no_folder_either(here, name, told):
    error = one_line_error(run("train", "dice_env:Letters", "--model", name))
    assert "'--model'" in error and told in error and repr(name) in error


def test_it_is_said_first_that_the_hub_is_asked(here, model, monkeypatch):
    from agentenv.agents import TransformersAgent
    from agentenv.errors import ModelError

    def unreachable(folder, **_):
        msg = f"nobody answers for {folder}"
        raise ModelError(msg)

    monkeypatch.setattr(TransformersAgent, "from_pretrained", unreachable)
    asked = run("train", "dice_env:Letters", "--model", "models/qwen", *SMALL)
    assert asked.exit_code == 2
    assert asked.stderr.splitlines()[0] == "no folder models/qwen here: asking the Hugging Face hub"
    assert "Error: " in asked.stderr.splitlines()[1]
    (here / "models").mkdir()
    (here / "models" / "qwen").symlink_to(model)
    assert "asking" not in run("train", "dice_env:Letters", "--model", "models/qwen", *SMALL).stderr


def test_the_examples_of_the_help_name_models_that_there_are():
    """A small one made on the spot, one of the hub, or what `agentenv demo` leaves."""
    examples = [line for line in run("train", "--help").stdout.splitlines() if line.startswith("    agentenv train")]
    assert len(examples) >= 5
    for example in examples:
        words = shlex.split(example)
        named = words[words.index("--model") + 1]
        assert named in {"tiny", "Qwen/Qwen3-0.6B", "runs/demo/checkpoint-30"}, example
        if words[2].endswith(".yaml"):
            assert (Path(__file__).parents[2] / words[2]).is_file()
