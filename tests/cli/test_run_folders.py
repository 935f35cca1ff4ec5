"""The folder of a run: tried before any work, never over another run; what can go on is told, and what cannot."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli_runs import one_line_error, run

TRAIN = ["train", "dice_env:Letters", "--model", "."]
MARK = "trainer_state.json"


def make_run(folder, *checkpoints, marked=()):
    """A run with checkpoints, of which those that are marked were written to their end; the others are cut off."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("")
    for name in {*checkpoints, *marked}:
        (folder / name).mkdir()
        (folder / name / MARK).write_text("{}" if name in marked else '{"global_step": ')


@pytest.mark.parametrize("command", [TRAIN, [*TRAIN, "--dry-run"], ["demo"]], ids=["train", "dry", "demo"])
@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("dang", "'dang' is a link to 'nowhere', which is not there"),
        ("dang/run", "'dang' is a link to 'nowhere', which is not there"),
        ("loop", "'loop' is a link to 'loop', which is not there"),
        ("/proc/run", "must be a folder to write to, got '/proc/run' (No such file or directory)"),
        ("/proc/sys/deep/run", "must be a folder to write to, got '/proc/sys/deep/run' ("),
        ("dice_env.py/run", "'dice_env.py' is a file"),
        ("x" * 300, "(File name too long)"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(here, command, folder, told):
    (here / "dang").symlink_to("nowhere")
    (here / "loop").symlink_to("loop")
    error = one_line_error(run(*command, "--run-folder", folder))
    assert "'--run-folder'" in error and told in error and "name another" in error


@pytest.mark.parametrize("command", [TRAIN, ["demo"]], ids=["train", "demo"])
def test_runs_itself_may_be_in_the_way(here, command):
    (here / "runs").symlink_to("nowhere")
    assert "'runs' is a link to 'nowhere'" in one_line_error(run(*command))
    (here / "runs").unlink()
    (here / "runs").write_text("")
    assert "'runs' is a file" in one_line_error(run(*command))


def test_trying_a_folder_leaves_nothing_and_takes_links_that_lead_somewhere(here):
    (here / "real").mkdir()
    (here / "link").symlink_to("real")
    before = sorted(here.rglob("*"))
    for folder in ("new/deep/run", "link", "link/run"):  # what is refused comes after the folder
        assert "'--model'" in one_line_error(run(*TRAIN[:-1], "no/such/model", "--run-folder", folder))
    assert sorted(here.rglob("*")) == before


def test_a_name_that_is_a_link_to_nothing_is_not_free(here):
    from agentenv.cli.run_folders import choose_run_folder

    (here / "runs").mkdir()
    (here / "runs" / "mine").symlink_to("nowhere")
    assert choose_run_folder(None, "mine") == Path("runs/mine-2")


@pytest.mark.parametrize(
    ("checkpoints", "marked", "goes_on"),
    [
        ([], [], False),
        (["checkpoint-abc"], ["checkpoint-abc"], False),
        (["checkpoint-5"], [], False),
        (["checkpoint-5"], ["checkpoint-4"], True),
        ([], ["checkpoint-x-2"], False),
    ],
)
def test_resume_is_offered_where_a_checkpoint_is(here, checkpoints, marked, goes_on):
    make_run(here / "r 1", *checkpoints, marked=marked)
    error = one_line_error(run(*TRAIN, "--run-folder", "r 1"))
    assert ("--resume it" in error) == goes_on and "name another" in error
    assert ("without a checkpoint, so that --resume cannot go on: name another, or remove it" in error) != goes_on
    if not goes_on:
        error = one_line_error(run(*TRAIN, "--run-folder", "r 1", "--resume"))
        assert "must hold a checkpoint to resume from; got 'r 1', which has none" in error
        assert ("written to its end" in error) == bool(checkpoints or marked)
        assert "leave out --resume and name another folder, or remove this one" in error


def test_what_is_no_run_is_not_to_be_removed(here):
    for folder, told in ((".", "which has none: name the folder of another run"), ("new", "which is not there")):
        error = one_line_error(run(*TRAIN, "--run-folder", folder, "--resume"))
        assert told in error and "remove" not in error


@pytest.mark.parametrize(
    ("resume", "content", "told"),
    [
        (False, None, "nothing was saved yet: the same command begins anew"),
        (None, None, "nothing was saved yet: the same command begins anew"),
        (False, [], "no checkpoint was saved yet, so the run cannot go on: to run again, name another --run-folder"),
        (False, ["checkpoint-9", "checkpoint-10"], "with --run-folder 'r 1' --resume goes on from r 1/checkpoint-10"),
        (True, ["checkpoint-2"], "the same command goes on from r 1/checkpoint-2"),
        (None, ["checkpoint-2"], "'r 1' stays as it is, and this command cannot go on with it: to run again, name"),
    ],
)
def test_a_stop_tells_how_to_go_on(here, capsys, resume, content, told):
    from agentenv.cli.run_folders import tell_when_stopped

    if content is not None:
        make_run(here / "r 1", marked=content)
    with pytest.raises(KeyboardInterrupt), tell_when_stopped(Path("r 1"), resume=resume):
        raise KeyboardInterrupt
    said = capsys.readouterr()
    assert told in said.err and not said.out
    assert ("remove 'r 1'" in said.err) == ("to run again" in told)


@pytest.mark.model
def test_a_demo_that_is_stopped_says_what_stays(here, monkeypatch):
    import agentenv.trainers.demo

    def stopped(folder, *_, **__):
        (here / folder).mkdir(parents=True)
        make_run(here / folder / "trees")
        raise KeyboardInterrupt

    monkeypatch.setattr(agentenv.trainers.demo, "run_demo", stopped)
    done = run("demo", "--quick")
    assert done.exit_code == 130
    assert "stopped; runs/demo stays as it is, and this command cannot go on with it" in done.stderr


STOPS = """
import signal
import threading
from pathlib import Path

from dice_env import Letters

once = threading.Lock()  # episodes step side by side


class Stops(Letters):
    def __init__(self, *, after: str, **kwargs):
        super().__init__(**kwargs)
        self.after = after

    def on_text(self, text):
        if Path(self.after).exists() and once.acquire(blocking=False):
            signal.raise_signal(signal.SIGINT)
        return super().on_text(text)
"""

SMALL = ["--tasks-per-step", 2, "--tasks", 8, "--rollouts", 2, "--eval-tasks", 2, "--max-action-tokens", 4]


@pytest.fixture
def words(here):
    import torch
    from tiny_chat import tiny

    torch.set_num_threads(1)
    model, tokenizer = tiny()
    model.save_pretrained(here / "model")
    tokenizer.save_pretrained(here / "model")
    return ["train", "dice_env:Letters", "--model", "model", *SMALL]


@pytest.mark.model
@pytest.mark.parametrize(
    "after", ["runs/Stops-rtmc/metrics.jsonl", "runs/Stops-rtmc/checkpoint-1/agentenv_state/files.json"]
)
def test_what_ctrl_c_says_can_be_done(here, words, after):
    name = f"stops_{'checkpoint' in after}"
    (here / f"{name}.py").write_text(STOPS)
    words = [words[0], f"{name}:Stops", *words[2:], "--option", f"after={after}", "--steps", 2, "--every", 1]
    stopped = run(*words)
    assert stopped.exit_code == 130, stopped.stderr
    if "checkpoint" not in after:
        assert "no checkpoint was saved yet, so the run cannot go on" in stopped.stderr
        shutil.rmtree(here / shlex.split(re.findall("remove (.*)", stopped.stderr)[0])[0])
        again = run(*words, "--run-folder", "runs/Stops-rtmc")
    else:
        again = run(*words, *shlex.split(re.findall("same command with (.*) goes on", stopped.stderr)[0]))
    assert again.exit_code == 0, again.stderr
    assert (here / "runs" / "Stops-rtmc" / "checkpoint-2").is_dir()


@pytest.mark.model
def test_a_damaged_checkpoint_is_refused_with_what_to_remove(here, words):
    words += ["--steps", 3, "--every", 1, "--run-folder", "br"]
    assert run(*words).exit_code == 0
    words += ["--resume", "--steps", 4]
    optimizer = here / "br" / "checkpoint-3" / "optimizer.pt"
    optimizer.unlink()
    for more in ([], ["--dry-run"]):
        error = one_line_error(run(*words, *more))
        assert "'--resume': 'br/checkpoint-3/optimizer.pt' is missing" in error and "unexpected" not in error
        assert "remove 'br/checkpoint-3', then 'br/checkpoint-2' is taken" in error
    (here / "br" / "checkpoint-2" / "agentenv_state" / "files.json").write_text("[1")
    told = "remove 'br/checkpoint-3' and 'br/checkpoint-2', then 'br/checkpoint-1' is taken"
    assert told in one_line_error(run(*words))
    shutil.rmtree(here / "br" / "checkpoint-3")
    error = one_line_error(run(*words))
    assert "'br/checkpoint-2/agentenv_state/files.json' cannot be read" in error
    shutil.rmtree(here / "br" / "checkpoint-2")
    (here / "br" / "checkpoint-7").mkdir()  # of which a crash left the folder alone
    first = here / "br" / "checkpoint-1"
    parts = list((first / "agentenv_state").glob("*.pt"))
    kept = parts[0].read_bytes()
    parts[0].write_bytes(kept[:20])
    error = one_line_error(run(*words))
    assert f"'--resume': {parts[0].stem}" in error and "unexpected" not in error
    parts[0].write_bytes(kept)
    (first / "model.safetensors").write_bytes(b"")
    assert "this folder holds no other: begin anew in another folder" in one_line_error(run(*words))


@pytest.mark.model
def test_other_settings_are_a_refusal_of_resume(here, words):
    words += ["--every", 1, "--run-folder", "run"]
    assert run(*words, "--steps", 1).exit_code == 0
    for more in ([], ["--dry-run"]):
        error = one_line_error(run(*words, "--steps", 2, "--resume", "--seed", 5, *more))
        assert "'--resume'" in error and "seed is 0 in the run, 5 now" in error and "unexpected" not in error


@pytest.mark.model
def test_a_folder_that_another_run_trains_in_is_refused(here, words):
    import fcntl
    import os

    (here / "held").mkdir()
    held = os.open(here / "held", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    error = run(*words, "--steps", 1, "--run-folder", "held")
    os.close(held)
    assert error.exit_code == 2 and "'--run-folder': output_dir must be no other run's" in error.stderr


@pytest.mark.model
@pytest.mark.parametrize("given", [True, "cp", "cp/checkpoint-5", "cp/checkpoint-6"])
def test_python_is_told_of_what_is_no_checkpoint_too(here, given):
    from agentenv.trainers.checkpoint import ResumeError, read_checkpoint

    make_run(here / "cp", "checkpoint-5")
    with pytest.raises(ResumeError, match=r"begin anew in another folder|trainer_state\.json' is missing or cut off"):
        read_checkpoint(given, "cp")
    (here / "cp" / "checkpoint-5" / MARK).write_text(json.dumps({"global_step": 5}))
    assert str(read_checkpoint(True, "cp")) == "cp/checkpoint-5"
