"""Files that commands write: nothing of another kind is replaced, and what cannot be written is said at once."""

import os
import stat
from pathlib import Path

import pytest
from cli_runs import one_line_error, run

ENV = "agentenv/MathVerifier-v0"
WRITERS = {
    "rollout": ("rollout", ENV, "--tasks", 1, "--rollouts", 1, "--out"),
    "eval": ("eval", ENV, "--tasks", 1, "--rollouts", 1, "--out"),
    "replay": ("replay", "trees.jsonl", "--at", 0, "--out"),
    "play": ("play", ENV, "--trees"),
    "view": ("view", "trees.jsonl", "--out"),
}
ANEW = ("rollout", "eval", "view")  # write a whole file; the others add to one


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = run(*WRITERS["rollout"], "trees.jsonl", "--seed", 3)
    assert made.exit_code == 0, made.stderr
    return tmp_path


def overwrite(name: str) -> tuple[str, ...]:
    return ("--overwrite",) if name == "rollout" else ()


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_of_another_kind_stays(here, name):
    (here / "notes.txt").write_text("mine\n")
    others = ["notes.txt"] if name in {"rollout", "replay", "play"} else ["notes.txt", "trees.jsonl"]
    for other in others:
        before = (here / other).read_bytes()
        result = run(*WRITERS[name], other, *overwrite(name), stdin="")
        assert "another" in one_line_error(result)
        assert (here / other).read_bytes() == before


@pytest.mark.parametrize("name", WRITERS)
def test_devices_pipes_and_folders_are_refused_and_stay(here, name):
    os.mkfifo(here / "pipe")
    (here / "folder").mkdir()
    (here / "link").symlink_to("pipe")
    for target in ("pipe", "link", "folder", "/dev/full"):
        kept = Path(target).stat()
        assert "must be a file" in one_line_error(run(*WRITERS[name], target, *overwrite(name), stdin=""))
        assert stat.S_IFMT(Path(target).stat().st_mode) == stat.S_IFMT(kept.st_mode)
    assert (here / "link").is_symlink()


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_leads_to_the_file_that_is_written(here, name):
    (here / "elsewhere").mkdir()
    (here / "link").symlink_to("elsewhere/file")
    result = run(*WRITERS[name], "link", stdin=":quit\n" if name == "play" else "")
    if name != "play":  # where nothing was played nothing is written
        assert result.exit_code == 0, result.stderr
        assert (here / "elsewhere" / "file").stat().st_size
    assert (here / "link").is_symlink()


@pytest.mark.parametrize("name", WRITERS)
def test_folders_are_made_and_a_file_in_the_way_is_named(here, name):
    (here / "file").write_text("mine")
    assert "'file'" in one_line_error(run(*WRITERS[name], "file/x.jsonl", stdin="")).replace(f"{here}/", "")
    result = run(*WRITERS[name], "new/one/x.jsonl", stdin=":quit\n" if name == "play" else "")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("name", ANEW)
def test_one_of_its_own_kind_is_replaced(here, name):
    for _ in range(2):
        result = run(*WRITERS[name], "out.x", *overwrite(name), stdin="")
        assert result.exit_code == 0, result.stderr


def test_trees_that_another_run_writes_are_not_emptied(here):
    from agentenv.serialize import TreeWriter

    before = (here / "trees.jsonl").read_bytes()
    with TreeWriter(here / "trees.jsonl", append=True):
        result = run(*WRITERS["rollout"], "trees.jsonl", "--overwrite")
    assert "being written by another rollout" in one_line_error(result)
    assert (here / "trees.jsonl").read_bytes() == before


def test_what_to_resume_must_be_there(here):
    assert "there is no 'typo.jsonl'" in one_line_error(run(*WRITERS["rollout"], "typo.jsonl", "--resume"))
    both = run(*WRITERS["rollout"], "trees.jsonl", "--resume", "--overwrite")
    assert "cannot be given with --resume" in one_line_error(both)
