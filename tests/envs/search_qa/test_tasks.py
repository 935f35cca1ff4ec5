import importlib
import json
import os
from pathlib import Path

import pytest

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
        ({"question": "Q?", "answer": "x", "supporting_facts": [[]]}, "unknown form"),
        ({"question": "Q?", "answer": "x", "paragraphs": [1]}, "unknown form"),
        ({"question": "Q?", "possible_answers": "[oops"}, "unknown form"),
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


@pytest.mark.skipif(not DATA, reason="AGENTENV_DATA is not set")
def test_the_real_questions():
    tasks = load_tasks(Path(str(DATA)) / "hotpotqa_questions_100.jsonl")
    assert len(tasks) == 100
    assert all(len(task.supporting) == 2 and task.hops == 2 for task in tasks)
    assert {task.kind for task in tasks} == {"bridge", "comparison"}
