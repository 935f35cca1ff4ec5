"""Bundled and generated tasks: the solution scores 1, the untouched code 0, an empty submission 0."""

import ast

import pytest

from agentenv.envs.code_repair import (
    KINDS,
    GeneratedTasks,
    Grader,
    Submission,
    bundled_projects,
    bundled_tasks,
    find_mutations,
)
from agentenv.errors import TaskError

GRADER = Grader()


def solution(task):
    return Submission({path: content.encode() for path, content in task.solution.items()})


def empty(task):
    return Submission({path: b"" for path in task.files if path.endswith(".py")})


@pytest.mark.parametrize("project", bundled_projects(), ids=lambda project: project.id)
def test_bundled_tasks_are_broken_and_repairable(project):
    tasks = [project.task(bug) for bug in project.bugs]
    hidden = tuple(dict.fromkeys(case for task in tasks for case in task.hidden))
    # every solution gives the same workspace, the correct project, so one grading of all cases stands for all of them
    assert all({**task.files, **task.solution} == project.files for task in tasks)
    right = GRADER.grade(tasks[0].model_copy(update={"hidden": hidden}), solution(tasks[0]))
    assert right.solved, (project.id, right.reasons)
    for task in tasks:
        assert not GRADER.grade(task, Submission()).solved, task.id
        assert GRADER.grade(task, empty(task), stop_early=True).passed == 0, task.id


def test_there_are_enough_and_they_differ():
    tasks = bundled_tasks()
    assert len(tasks) >= 40
    assert len({task.id for task in tasks}) == len(tasks)
    assert len({task.kind for task in tasks}) >= 15
    assert {task.difficulty for task in tasks} == {1, 2, 3, 4}
    assert all(len(task.files) >= 2 and task.visible and len(task.hidden) >= 8 for task in tasks)


def test_no_hidden_case_is_visible():
    for task in bundled_tasks():
        assert not {case.call for case in task.visible} & {case.call for case in task.hidden}


SOURCE = '''"""Ümlaut first: columns count bytes."""


def f(values, limit):
    total = 0
    for value in values:
        if value < limit and value != 1:
            total += value * 2
        elif value == limit:
            total -= 1
        if total > 9:
            return max(total, limit)
    return f"{total + 1}"
'''


def test_mutations_are_valid_small_and_of_every_kind():
    mutations = find_mutations(SOURCE)
    assert {mutation.kind for mutation in mutations} == set(KINDS)
    texts = [mutation.apply(SOURCE) for mutation in mutations]
    assert SOURCE not in texts
    for text in texts:
        ast.parse(text)
    assert SOURCE.replace("value < limit", "value <= limit") in texts
    assert SOURCE.replace("max(total, limit)", "max(limit, total)") in texts
    assert SOURCE.replace("value * 2", "value + 2") in texts
    assert SOURCE.replace("        if total > 9:\n            return max(total, limit)\n", "        pass\n") in texts
    assert not any("total - 1}" in text for text in texts)  # nothing inside of f-strings


@pytest.mark.slow
def test_generated_tasks_are_seeded_broken_and_repairable():
    tasks = GeneratedTasks(seed=3)
    first = tasks[:3]
    assert len(tasks) == 1_000_000
    assert tasks[1] == first[1]
    assert GeneratedTasks(seed=4)[0] != first[0]
    for task in first:
        assert GRADER.grade(task, solution(task)).solved
        assert not GRADER.grade(task, Submission()).solved
        assert GRADER.grade(task, empty(task)).passed == 0


def test_generated_tasks_of_one_kind():
    assert {task.kind for task in GeneratedTasks(kinds=("boundary",))[:2]} == {"boundary"}
    with pytest.raises(ValueError, match="kinds must be among"):
        GeneratedTasks(kinds=("typo",))
    with pytest.raises(IndexError, match="below"):
        GeneratedTasks(size=3)[3]


def test_a_bug_that_fits_nowhere_is_an_error():
    project = bundled_projects()[0]
    path = next(iter(project.bugs[0].changes))
    bug = project.bugs[0].model_copy(update={"changes": {path: (("no such text", ""),)}})
    with pytest.raises(TaskError, match="0 times"):
        project.task(bug)
