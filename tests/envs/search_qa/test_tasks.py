import importlib
import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from agentenv.envs.search_qa import SearchQA
from agentenv.envs.search_qa.corpus import Passage
from agentenv.envs.search_qa.tasks import QaTask, load_tasks, parse_row, row_passages
from agentenv.errors import TaskError

# One row of each data set, with the fields of its published files (the texts are ours).
HOTPOTQA = {
    "_id": "5a7",
    "question": "Q?",
    "answer": "yes",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": [["B", 0], ["A", 1], ["B", 2]],
    "context": [["A", ["One. ", "Two."]], ["B", ["Three."]], ["C", []]],
}
HOTPOTQA_HF = {
    **HOTPOTQA,
    "id": "5a7",
    "supporting_facts": {"title": ["B", "A", "B"], "sent_id": [0, 1, 2]},
    "context": {"title": ["A", "B", "C"], "sentences": [["One. ", "Two."], ["Three."], []]},
}
MUSIQUE = {
    "id": "3hop1__12_34_56",
    "question": "Q?",
    "answer": "Paris",
    "answer_aliases": ["City of Light", "Paris"],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "A", "paragraph_text": "One.", "is_supporting": True},
        {"idx": 1, "title": "B", "paragraph_text": "Two.", "is_supporting": False},
        {"idx": 2, "title": "C", "paragraph_text": "Three.", "is_supporting": True},
    ],
    "question_decomposition": [{}, {}, {}],
}
ROWS = [
    (HOTPOTQA, ("yes",), ("B", "A"), "comparison", 2),
    (HOTPOTQA_HF, ("yes",), ("B", "A"), "comparison", 2),
    ({"id": "1", "question": "Q?", "answer": "x", "supporting_titles": ["A", "B"]}, ("x",), ("A", "B"), "", 2),
    ({"_id": "2w", "question": "Q?", "answer": "x", "type": "compositional", "supporting_facts": [["A", 0]],
      "evidences": [["A", "father", "x"]]}, ("x",), ("A",), "compositional", 1),
    (MUSIQUE, ("Paris", "City of Light"), ("A", "C"), "", 3),
    ({"question": "Q?", "answer": ["14 May 1972", "May 1972"]}, ("14 May 1972", "May 1972"), (), "", 0),
    ({"question_id": "tc_1", "question": "Q?", "answer": {"value": "Ada Lo", "aliases": ["Lo", "Ada Lo"],
      "normalized_value": "ada lo"}}, ("Ada Lo", "Lo"), (), "", 0),
    ({"id": "s", "question": "Q?", "answers": {"text": ["x", "y"], "answer_start": [1, 2]}}, ("x", "y"), (), "", 0),
    ({"id": "t_0", "question": "Q?", "golden_answers": ["x"], "metadata": {}}, ("x",), (), "", 0),
    ({"question": "Q?", "reward_model": {"ground_truth": {"target": ["x", "y"]}}}, ("x", "y"), (), "", 0),
    ({"question": "Q?", "possible_answers": '["politician", "pol"]'}, ("politician", "pol"), (), "", 0),
    ({"id": 5, "question": {"text": "Q?"}, "annotations": {"short_answers": [{"text": ["x"]}, {"text": []}]}},
     ("x",), (), "", 0),
    ({"question": "Q?", "answer": 42}, ("42",), (), "", 0),
    ({"question": "Q?", "answer": True}, ("yes",), (), "", 0),
]  # fmt: skip


@pytest.mark.parametrize(("row", "answers", "supporting", "kind", "hops"), ROWS)
def test_rows_of_each_data_set(row, answers, supporting, kind, hops):
    task = parse_row(row)
    assert task.question == "Q?"
    assert (task.answers, task.supporting, task.kind, task.hops) == (answers, supporting, kind, hops)


def test_our_own_rows_come_back():
    task = QaTask(
        id="a", question="Q?", answers=("x", "y"), supporting=("A",), kind="chain", hops=1, path=("A | r | x",)
    )
    assert parse_row(json.loads(task.model_dump_json())) == task


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "must be a JSON object"),
        ({"answer": "x"}, "question"),
        ({"question": "", "answer": "x"}, "question"),
        ({"question": "Q?"}, "answers"),
        ({"question": "Q?", "answer": []}, "answers"),
        ({"question": "Q?", "answer": "  "}, "answers"),
        ({"question": "Q?", "answer": {"start": {"x": 1}}}, "answers"),
        ({"question": "Q?", "answer": [{"x": 1}]}, "an answer must be text"),
        ({"question": "Q?", "answer": "x", "answerable": False}, "unanswerable"),
        ({"question": "Q?", "answer": "x", "supporting_facts": [[]]}, "'supporting_facts' must hold pairs of .*, got"),
        ({"question": "Q?", "answer": "x", "paragraphs": [1]}, r"'paragraphs' must hold a list of mappings, got \[1\]"),
        ({"question": "Q?", "possible_answers": "[oops"}, "'possible_answers': .*must be JSON, got .*json.dumps"),
        ({"question": ["Q?"], "answer": "x"}, "question"),
    ],
)
def test_malformed_rows(row, message):
    with pytest.raises(TaskError, match=message) as caught:
        parse_row(row, where="file.jsonl, line 9")
    assert "file.jsonl, line 9" in str(caught.value)


def test_files(tmp_path):
    rows = [HOTPOTQA, {**HOTPOTQA, "_id": "other"}]
    for name, text in {
        "a.jsonl": "\n".join(map(json.dumps, rows)) + "\n\n",
        "b.json": json.dumps(rows),
        "c.json": json.dumps({"data": rows}),
        "d.json": json.dumps({"Data": rows}),
        "e.json": "\n".join(map(json.dumps, rows)),
    }.items():
        (tmp_path / name).write_text(text)
        assert [task.id for task in load_tasks(tmp_path / name)] == ["5a7", "other"], name
    assert load_tasks(iter(rows)) == load_tasks(tmp_path / "a.jsonl")


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path):
    row = json.dumps({"question": "a\u2028b", "answer": "x"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_text(row + "\n", encoding="utf-8")
    assert len(load_tasks(tmp_path / "a.jsonl")) == 1


def test_bad_files(tmp_path):
    for name, content, message in [
        ("a.jsonl", b'{"question": "Q?", "answer": "x"}\n{"question"', "line 2: not JSON"),
        ("b.jsonl", b"\xff\xfe", "cannot read"),
        ("c.json", b'[{"question": "Q?"}]', "row 0: answers"),
        ("d.jsonl", b"7", "line 1: a question must be"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TaskError, match=message):
            load_tasks(tmp_path / name)
    with pytest.raises(TaskError, match="cannot read"):
        load_tasks(tmp_path / "absent.jsonl")


def table(**columns):
    """One row, whose columns are given as they are in pandas."""
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"question": ["Q?"], **{name: [value] for name, value in columns.items()}})


@pytest.mark.parametrize(
    ("columns", "answers", "supporting"),
    [
        ({"answer": np.array(["x", "y"])}, ("x", "y"), ()),
        ({"golden_answers": np.array(["x", "y"], dtype=object), "answer": None}, ("x", "y"), ()),
        ({"answers": '["x", "y"]'}, ("x", "y"), ()),
        ({"answers": "{'text': ['x'], 'answer_start': [3]}"}, ("x",), ()),
        ({"answer": "['14 May 1972', 'May 1972']"}, ("14 May 1972", "May 1972"), ()),
        ({"answer": '{"value": "Ada", "aliases": ["Lo"]}'}, ("Ada", "Lo"), ()),
        ({"answer": "[0, 1)"}, ("[0, 1)",), ()),
        ({"answer": "[sic]"}, ("[sic]",), ()),
        ({"answer": "x", "answer_aliases": '["y", "x"]'}, ("x", "y"), ()),
        ({"answer": "x", "answer_aliases": math.nan}, ("x",), ()),
        ({"answer": math.nan, "answers": ["y"]}, ("y",), ()),
        ({"answer": 42.0}, ("42",), ()),
        ({"answer": np.datetime64("1972-05-14")}, ("1972-05-14",), ()),
        ({"answer": np.bool_(False)}, ("no",), ()),
        ({"answer": ["x", None, math.nan]}, ("x",), ()),
        ({"reward_model": '{"ground_truth": {"target": ["x"]}}'}, ("x",), ()),
        ({"reward_model": {"ground_truth": {"target": np.array(["x", "y"])}}}, ("x", "y"), ()),
        ({"answer": "x", "supporting_titles": np.array(["A", "B"])}, ("x",), ("A", "B")),
        ({"answer": "x", "supporting_titles": '["A", "B"]'}, ("x",), ("A", "B")),
        ({"answer": "x", "supporting_facts": '[["A", 0]]'}, ("x",), ("A",)),
        ({"answer": "x", "supporting_facts": {"title": np.array(["A"]), "sent_id": np.array([0])}}, ("x",), ("A",)),
        ({"answer": "x", "paragraphs": '[{"title": "A", "is_supporting": true}]'}, ("x",), ("A",)),
    ],
)
def test_columns_as_libraries_hold_them(columns, answers, supporting):
    (task,) = load_tasks(table(**columns))
    assert (task.answers, task.supporting) == (answers, supporting)
    assert task.hops == len(supporting)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": math.nan}, r"^row 0: answers: .*at least 1 item"),
        ({"answer": np.datetime64("NaT")}, "answers: .*at least 1 item"),
        ({"answer": "x", "question": math.nan}, "question is missing or empty"),
        ({"answers": "[x y]"}, r"column 'answers': a list .* must be JSON, got '\[x y\]'"),
        ({"answer": {"value": {"x": 1}}}, "column 'answer': an answer must be text or a list of texts, got {'x': 1}"),
        ({"answer": "x", "supporting_titles": "A"}, "'supporting_titles' must be a list of texts, got 'A'"),
        ({"answer": "x", "hops": "many"}, "hops: .*integer.*got 'many'"),
        ({"answer": "x", "answerable": "False"}, "unanswerable"),
    ],
)
def test_columns_that_cannot_be_used(columns, message):
    with pytest.raises(TaskError, match=message):
        load_tasks(table(**columns))


@pytest.mark.parametrize(
    "row", [HOTPOTQA, HOTPOTQA_HF, MUSIQUE, table(answers='["x"]').iloc[0]], ids=["a", "b", "c", "d"]
)
def test_a_row_of_a_data_set_is_a_task_of_reset(row):
    env = SearchQA()
    env.reset(seed=0, options={"task": row})
    assert env.task == parse_row(dict(row))
    with pytest.raises(TaskError, match="unanswerable"):
        env.reset(options={"task": {**MUSIQUE, "answerable": np.bool_(False)}})


def test_bad_rows_are_reported_together_or_left_out():
    bad = [{"question": "Q?", "answer": answer} for answer in ("x", math.nan, {}, "y")]
    with pytest.raises(TaskError, match=r"(?s)2 of 4 rows cannot be used:.*row 1: answers.*row 2: answers"):
        load_tasks(bad)
    with pytest.warns(UserWarning, match="left out: 2 of 4 rows"):
        tasks = load_tasks(bad, on_bad_row="skip")
    assert [task.answers for task in tasks] == [("x",), ("y",)]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_the_same_questions_and_passages_from_every_format(name, tmp_path):
    pandas = pytest.importorskip("pandas")
    data = pandas.DataFrame([MUSIQUE | {"question_decomposition": None}, {"id": "b", "question": "R?", "answer": "7"}])
    path = tmp_path / name
    if name == "a.csv":
        data.to_csv(path)
    elif name == "a.parquet":
        data.to_parquet(path)
    else:
        data.to_json(path, orient="records", lines=True)
    first, second = load_tasks(path)
    assert (first.id, first.answers, first.hops) == (MUSIQUE["id"], ("Paris", "City of Light"), 3)
    assert first.supporting == ("A", "C")
    assert (second.id, second.answers, second.supporting) == ("b", ("7",), ())
    assert row_passages(path) == row_passages([MUSIQUE])


def test_an_environment_takes_a_table(tmp_path):
    passages = table(id=[7], title=[1984], text=["Orwell wrote it."]).drop(columns="question").map(lambda cell: cell[0])
    passages.to_parquet(tmp_path / "corpus.parquet")
    env = SearchQA(corpus=tmp_path / "corpus.parquet", tasks=table(answer=np.array(["Orwell"])))
    child = pickle.loads(pickle.dumps(env))
    for one in (env, child):
        one.reset(seed=0)
        assert one.task.answers == ("Orwell",)
        assert "[7] 1984: Orwell wrote it." in one.search("Orwell")
        one.close()


def test_hugging_face_data_sets():
    datasets = importlib.import_module("datasets")
    data = datasets.Dataset.from_list([HOTPOTQA_HF, HOTPOTQA_HF])
    tasks = load_tasks(data)
    assert len(tasks) == 2
    assert tasks[0] == parse_row(HOTPOTQA_HF)
    assert row_passages(data) == row_passages([HOTPOTQA])


def test_passages_of_rows():
    assert row_passages([HOTPOTQA, HOTPOTQA_HF]) == [
        Passage("0", "A", "One. Two."), Passage("1", "B", "Three."), Passage("2", "C", "")
    ]  # fmt: skip
    assert [p.title for p in row_passages([MUSIQUE])] == ["A", "B", "C"]


DATA = os.environ.get("AGENTENV_DATA")


@pytest.mark.data
def test_the_real_questions():
    tasks = load_tasks(Path(str(DATA)) / "hotpotqa_questions_100.jsonl")
    assert len(tasks) == 100
    assert all(len(task.supporting) == 2 and task.hops == 2 for task in tasks)
    assert {task.kind for task in tasks} == {"bridge", "comparison"}
