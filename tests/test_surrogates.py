"""Half a surrogate pair, which models do write, stops nothing that reads what agents and environments said."""

import json

import numpy as np
import pytest
from cli_runs import run

from agentenv import Action, EpisodeTree
from agentenv.credit import TraceAllocator, rtmc_advantages
from agentenv.credit.embedding import embedding_signatures, hashed_embedding
from agentenv.serialize import read_trees, write_trees
from agentenv.whole_files import append_line, replace_file

HALVES = ["half an emoji \ud83d", "\udc4d the other", "\udcff"]


def spoken(half):
    """Everybody says it: the task, the environment with a picture, the agent."""
    url = "data:image/png;base64," + "a" * 300 + half
    parts = [{"type": "text", "text": half}, {"type": "image_url", "image_url": {"url": url}}]
    tree = EpisodeTree(({"role": "user", "content": half},), task_id=half)
    first = tree.add(0, Action(half), ({"role": "user", "content": parts},), reward=0.0)
    tree.add(first, Action(half), reward=1.0, terminated=True)
    tree.add(0, Action("whole"), reward=0.0, terminated=True)
    return tree


@pytest.mark.parametrize("half", HALVES)
def test_credit_and_predictors_read_it(half):
    tree = spoken(half)
    report = TraceAllocator().learn([tree])
    assert report["brier"] == 0.25
    ids = embedding_signatures([tree])
    assert np.isfinite(rtmc_advantages(tree.arrays(), state_ids=ids).advantages).all()
    assert not np.array_equal(*hashed_embedding([half, half.encode("utf-8", "replace").decode()]))


@pytest.mark.parametrize("half", HALVES)
def test_files_and_commands_hold_it(half, tmp_path):
    path, tree = tmp_path / "t.jsonl", spoken(half)
    write_trees(path, [tree])
    (again,) = read_trees(path)
    assert [node.observation for node in again.nodes] == [node.observation for node in tree.nodes]
    for options in ([], ["--json"], ["--csv"], ["--tree", "0"]):
        result = run("trees", path, *options)
        assert result.exit_code == 0, result.stderr
        if options == ["--json"]:
            assert json.loads(result.stdout)[0]["task"] == half


@pytest.mark.parametrize("half", HALVES)
def test_whole_files_escape_it(half, tmp_path):
    path = tmp_path / "said"
    replace_file(path, f"{half}\n")
    append_line(path, half)
    escaped = half.encode("utf-8", "backslashreplace").decode()
    assert path.read_text(encoding="utf-8") == f"{escaped}\n{escaped}\n"
