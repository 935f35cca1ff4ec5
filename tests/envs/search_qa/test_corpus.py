import json

import pytest

from agentenv.envs.search_qa.corpus import Passage, check_passages, parse_passage, read_corpus, write_corpus
from agentenv.errors import CorpusError


def test_round_trip(tmp_path):
    passages = [Passage("1", "Title", "text\nwith lines"), Passage("x", "", "北京 “quoted”"), Passage("3", "only", "")]
    assert write_corpus(passages, tmp_path / "c.jsonl") == 3
    assert list(read_corpus(tmp_path / "c.jsonl")) == passages


def test_forms_of_a_row():
    assert parse_passage({"id": 7, "title": " T ", "text": " x "}) == Passage("7", "T", "x")
    assert parse_passage({"id": "7", "contents": '"Evan Morris"\nEvan L.\nMorris'}) == Passage(
        "7", "Evan Morris", "Evan L.\nMorris"
    )
    assert parse_passage({"id": 7.0, "title": 1984, "text": None, "contents": "x\ny"}) == Passage("7", "x", "y")
    assert parse_passage({"id": "7", "title": 1984, "text": 2.5}) == Passage("7", "1984", "2.5")
    assert parse_passage({"id": "7", "text": "no title"}).contents == "no title"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 2], "must be a JSON object"),
        ({"title": "t", "text": "x"}, "'id' must be text"),
        ({"id": True, "text": "x"}, "'id' must be text"),
        ({"id": "1", "title": "t"}, "'text' must be text"),
        ({"id": "1", "title": [3], "text": "x"}, "'title' must be text"),
        ({"id": "", "text": "x"}, "non-empty 'id'"),
        ({"id": "1", "title": "  ", "text": ""}, "'title' or a 'text'"),
        ({"id": "1", "text": "\ud800"}, "lone surrogate"),
    ],
)
def test_malformed_rows(row, message):
    with pytest.raises(CorpusError, match=message):
        parse_passage(row)


def test_errors_name_file_and_line(tmp_path):
    path = tmp_path / "c.jsonl"
    good = json.dumps({"id": "1", "title": "t", "text": "x"}).encode()
    for bad, message in [
        (b'{"id": "2", "text": "caf\xe9"}', "line 3: not UTF-8"),
        (b'{"id": "2", "text": ', "line 3: not JSON"),
        (b"[" * 100_000, "line 3: not JSON"),
        (b"17", "line 3: a passage must be"),
    ]:
        path.write_bytes(good + b"\n\n" + bad + b"\n")
        with pytest.raises(CorpusError, match=message):
            list(read_corpus(path))
    with pytest.raises(CorpusError, match="is not a file"):
        list(read_corpus(tmp_path / "absent.jsonl"))


def test_empty_and_duplicates():
    with pytest.raises(CorpusError, match="empty"):
        list(check_passages([]))
    with pytest.raises(CorpusError, match="'1' occurs twice"):
        list(check_passages([Passage("1", "a", ""), Passage("2", "a", ""), Passage("1", "b", "")]))
