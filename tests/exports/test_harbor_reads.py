"""Harbor's own models read what we write: ATIF documents and task folders; its linter finds what we say."""

import json
from importlib import import_module

import pytest
from episode_trees import episode_trees
from exported_trees import odd_tree
from hypothesis import HealthCheck, given, settings
from random_trees import random_trees

from agentenv import Action, EpisodeTree
from agentenv.envs.code_repair import bundled_tasks
from agentenv.exports import to_atif, write_harbor

pytestmark = pytest.mark.peers("harbor")


def read(documents):
    models = import_module("harbor.models.trajectories")
    return [models.Trajectory.model_validate_json(json.dumps(document)) for document in documents]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(episode_trees().map(lambda drawn: drawn[0]) | random_trees())
def test_any_document_is_valid_atif(tree):
    read(to_atif(tree))


def test_what_is_rare_is_valid_and_keeps_what_atif_has_words_for():
    tree = odd_tree()
    tree.add(0, Action("", ()), ({"role": "user", "content": "sub"},), reward=0.0, info={"kept_messages": 0})
    documents = read(to_atif([tree, EpisodeTree(())], own=[0.0, 1.0, 2.0, 3.0, 4.0]))
    assert {document.schema_version for document in documents} == {"ATIF-v1.8"}
    assert documents[0].has_multimodal_content()
    metrics = documents[0].steps[-1].metrics
    assert metrics is not None
    assert (metrics.completion_token_ids, metrics.prompt_tokens) == ([1, 2], 9)
    assert [step.is_copied_context for step in documents[1].steps] == [True, None]


def test_every_bundled_task_is_a_task_and_the_linter_finds_what_we_say(tmp_path):
    lint_task, Task = import_module("harbor.lint").lint_task, import_module("harbor.models.task.task").Task
    for place in write_harbor(bundled_tasks(), tmp_path):
        assert Task.is_valid_dir(place), place
        task = Task(place)
        assert task.name == f"agentenv/{place.name}"
        assert task.paths.discovered_solve_path is not None
        found = {str(finding.rule) for finding in lint_task(place)}
        assert found == {"shared-verifier", "unpinned-image", "root-agent"}  # docs/exports.md says why these stand
