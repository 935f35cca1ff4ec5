"""What users do wrong, and what goes wrong around them: a clear error or the right run; nothing stays."""

import signal
import threading
from typing import Any

import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, Digits, trainer

from agentenv.errors import EpisodeError, InfrastructureError, ModelError, VerifierError
from agentenv.trainers import SRPPOConfig, SRPPOTrainer


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=["tree", "sr_ppo", "closed_loop"])
def make(request, tmp_path) -> Any:
    """Makes each trainer, of an environment, a model with its tokenizer, and settings."""

    def made(env: Any = Digits, pair: Any = None, **options: Any) -> Any:
        model, tokenizer = pair or random_model()
        if request.param == "tree":
            return trainer(model, tokenizer, tmp_path, env=env, **options)
        tasks = options.pop("tasks", TASKS)
        loop = {"closed_loop": True, "num_rollouts": 2, "num_continuations": 1}
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path), "max_steps": 2, "per_device_train_batch_size": 2, "max_action_tokens": 6,
            "gradient_accumulation_steps": 2, "bf16": False, "use_cpu": True, "gradient_checkpointing": False,
            "report_to": [], "save_strategy": "no", "disable_tqdm": True, "critic_warmup": 0,
            **(loop if request.param == "closed_loop" else {}),
        }  # fmt: skip
        args = SRPPOConfig(**settings | options)
        return SRPPOTrainer(model, args, env=env, train_tasks=tasks, processing_class=tokenizer)

    return made


class Down(Digits):
    """Nothing gets a reward."""

    def respond(self, action):
        msg = "the verifier is down"
        raise VerifierError(msg)


class NotANumber(Digits):
    def respond(self, action):
        self.add_reward(float("nan"))
        return "on"


class OverAtOnce(Digits):
    def start(self, task):
        return self.finish("there was nothing to do", reward=1.0)


class Third(Digits):
    """The third episode finds a bug."""

    begun = 0

    def start(self, task):
        Third.begun += 1
        if Third.begun == 3:
            msg = "a bug in the third episode"
            raise LookupError(msg)
        return super().start(task)


@pytest.mark.parametrize(
    ("env", "kind", "words"),
    [
        (Down, InfrastructureError, "no episode went through in 1 generations in a row .*the verifier is down"),
        (NotANumber, ValueError, "reward must be a finite number, got nan"),
        (
            OverAtOnce,
            EpisodeError,
            "OverAtOnce.start must only begin the episode: finish and add_reward",
        ),
        (Third, LookupError, "a bug in the third episode"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_environment_that_cannot_be_trained_on_ends_the_run_and_leaves_nothing_running(make, env, kind, words):
    Third.begun = 0
    before = set(threading.enumerate())
    run = make(env, rollout_retries=0, max_broken_generations=1)
    with pytest.raises(kind, match=words):
        run.train()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "rollout":
            thread.join(60)
            assert not thread.is_alive()


def without(*names: str) -> Any:
    model, tokenizer = random_model()
    for name in names:
        setattr(tokenizer, name, None)
    return model, tokenizer


def narrow() -> Any:
    model, tokenizer = random_model()
    model.resize_token_embeddings(len(tokenizer) - 40)
    return model, tokenizer


@pytest.mark.parametrize(
    ("pair", "options", "kind", "words"),
    [
        (lambda: without("pad_token", "eos_token"), {}, ModelError, "tokenizer must have an end token"),
        (narrow, {}, ModelError, "model must know all .* tokens of its tokenizer, got one that knows"),
        (random_model, {"tasks": []}, ValueError, "train_tasks must hold at least one generation of 4 tasks, got 0"),
        (random_model, {"max_completion_length": 1}, ValueError, "max_completion_length must be left out"),
    ],
    ids=["no end", "narrow", "no tasks", "length"],
)
def test_models_and_settings_that_cannot_be_trained_are_refused_before_anything_is_sampled(
    make, pair, options, kind, words
):
    with pytest.raises(kind, match=words):
        make(pair=pair(), **options)


def test_a_tokenizer_without_padding_trains_as_one_that_pads_with_its_end(make):
    model, tokenizer = random_model()
    tokenizer.pad_token = tokenizer.eos_token
    weights = []
    for pair in (without("pad_token"), (model, tokenizer)):
        run = make(pair=pair, max_steps=1, max_action_tokens=1)
        run.train()
        weights.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
    assert torch.equal(*weights) and weights[0].isfinite().all()


# ---------------------------------------------------------------------- run folders


def saving(folder, **options: Any) -> Any:
    model, tokenizer = random_model()
    return trainer(model, tokenizer, folder, save_strategy="steps", save_steps=1, **options)


def test_two_runs_at_once_need_two_folders(tmp_path):
    second = saving(tmp_path)

    class Meanwhile(Digits):
        def start(self, task):
            with pytest.raises(ValueError, match=r"output_dir must be no other run's, and one trains in .* now"):
                second.train()
            return super().start(task)

    saving(tmp_path, env=Meanwhile, max_steps=1, num_continuations=0).train()
    second.train()  # the first has let it go


@pytest.mark.parametrize("place", ["episode", "checkpoint"])
def test_a_run_that_is_interrupted_goes_on_as_if_it_had_not_been(tmp_path, place, monkeypatch):
    """Ctrl-C between two steps of an episode, or in the middle of a checkpoint."""
    whole = saving(tmp_path / "whole", max_steps=2)
    whole.train()
    run, once = saving(tmp_path / "run", max_steps=2), threading.Lock()
    with monkeypatch.context() as patch:
        owner, name = (Digits, "respond") if place == "episode" else (type(run), "_save_optimizer_and_scheduler")
        go_on: Any = getattr(owner, name)

        def interrupt(self: Any, *given: Any) -> Any:
            now = run.state.global_step == (1 if place == "episode" else 2)
            if now and once.acquire(blocking=False):  # episodes step side by side: a second one would end the tests
                signal.raise_signal(signal.SIGINT)
            return go_on(self, *given)

        patch.setattr(owner, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]
    again = saving(tmp_path / "run", max_steps=2)
    again.train(resume_from_checkpoint=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))


def test_a_checkpoint_of_which_a_file_is_missing_or_cut_off_is_refused_by_its_name(tmp_path):
    saving(tmp_path, max_steps=1).train()
    for name in ("optimizer.pt", "model.safetensors", "rng_state.pth", "scheduler.pt"):
        path = tmp_path / "checkpoint-1" / name
        content = path.read_bytes()
        for left, words in ((content[:90], "has 90 bytes of"), (None, "is missing")):
            path.unlink() if left is None else path.write_bytes(left)
            with pytest.raises(ValueError, match=rf"checkpoint-1/{name}' {words}.*: go on from another checkpoint"):
                saving(tmp_path, max_steps=2).train(resume_from_checkpoint=True)
        path.write_bytes(content)
    saving(tmp_path, max_steps=2, lr_scheduler_type="constant", allow_changes=True).train(resume_from_checkpoint=True)
