"""`tasks=`: rows in any form, files, tables and iterators, and errors that name the row."""

import pickle

import numpy as np
import pytest
from envs_for_tests import Dice, Dynamic

from agentenv.errors import TaskError


def goals(**options):
    env = Dice(**options)
    return [env.reset(options={"task": i})[0][0]["content"] for i in range(len(env.tasks))]


ROWS = [{"id": "a", "goal": 5}, {"id": "b", "goal": 7}]


@pytest.mark.parametrize(
    "tasks",
    [
        ROWS,
        tuple(ROWS),
        [Dice.Task(goal=5), Dice.Task(goal=7)],
        [{"goal": "5"}, {"goal": np.int64(7)}],
        [{"goal": 5.0, "id": 3}, {"goal": np.float64(7), "id": None}],
        {"goal": [5, 7]},
        np.array(ROWS, dtype=object),
    ],
)
def test_tasks_are_given_as_rows_in_any_form(tasks):
    assert goals(tasks=tasks) == ["Reach 5.", "Reach 7."]


def test_a_row_of_a_table_is_a_task():
    pandas = pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    frame = pandas.DataFrame([{"id": "a", "goal": 5.0}, {"id": None, "goal": 7.0}])
    rows = [frame.iloc[1], next(frame.iloc[1:].itertuples(index=False)), datasets.Dataset.from_pandas(frame)[1]]
    for row in (*rows, {"goal": np.float32(7)}, {"goal": "7"}):
        env = Dice()
        assert env.reset(options={"task": row})[0][0]["content"] == "Reach 7."
        assert env.task.id == ""
    assert goals(tasks=datasets.Dataset.from_pandas(frame)) == ["Reach 5.", "Reach 7."]
    assert goals(tasks=np.array([{"goal": 5}, {"goal": 7}])) == ["Reach 5.", "Reach 7."]
    with pytest.raises(TaskError, match=r"mapping of splits: choose one of \['train'\]"):
        Dice(tasks=datasets.DatasetDict({"train": datasets.Dataset.from_pandas(frame)}))


def test_tasks_come_from_iterators_which_forks_and_copies_need_not_read_again():
    env = Dice(tasks=(row for row in ROWS))
    assert env.tasks == [Dice.Task(id="a", goal=5), Dice.Task(id="b", goal=7)]
    for other in (env.spawn(), pickle.loads(pickle.dumps(env))):
        assert other.tasks == env.tasks
    assert Dynamic(tasks=iter([1, 2])).tasks == [1, 2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_tasks_come_from_files(name, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    {
        "a.jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
        "a.json": lambda path: frame.to_json(path, orient="records"),
        "a.csv": frame.to_csv,
        "a.parquet": frame.to_parquet,
    }[name](tmp_path / name)
    assert goals(tasks=str(tmp_path / name)) == goals(tasks=tmp_path / name) == ["Reach 5.", "Reach 7."]
    assert goals(tasks=frame) == ["Reach 5.", "Reach 7."]
    assert Dynamic(tasks=tmp_path / "a.jsonl").tasks == ROWS if name == "a.jsonl" else True


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({3, 4}, "tasks must have an order, got a set; pass a list"),
        (5, "rows must come from a path, a table .*, got 5"),
        ("absent.jsonl", "cannot read rows from 'absent.jsonl'"),
        ({"goal": [5, None, "many"]}, r"row 2: goal: input should be a valid integer.*got 'many'"),
        ({"goal": ["x", "y"], "aim": [1, 2]}, r"2 of 2 rows cannot be used:(?s:.*)aim: extra inputs"),
        (iter([{"goal": "many"}]), "does not fit Dice.Task: goal: "),
        ([], r"tasks must hold at least one task, got \[\]; without it"),
        (iter([]), "at least one task"),
        ({"goal": []}, "at least one task"),
    ],
)
def test_tasks_that_cannot_be_used_are_named(tasks, words):
    with pytest.raises(TaskError, match=words):
        Dice(tasks=tasks)
