"""The benchmark of graders, small: our graders make no mistake on our pairs, and its numbers add up."""

import importlib.util
import json
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("graders", Path(__file__).parents[3] / "benchmarks" / "graders.py")
assert _SPEC is not None
assert _SPEC.loader is not None
graders = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(graders)


def check(scores, file, names):
    assert json.loads(file.read_text()) == [vars(found) for found in scores]
    for found in scores:
        assert found.agree + found.wrong_rewarded + found.right_refused == found.pairs > 0
        assert sum(found.causes.values()) == found.pairs - found.agree
        if found.grader == "ours" and found.collection.startswith("our "):
            assert found.agree == found.pairs
    assert names <= {(found.collection, found.grader) for found in scores}


@pytest.mark.slow
def test_the_math_graders(tmp_path, capsys):
    scores = graders.main(["math", "--quick", "--json", str(tmp_path / "out.json")])
    check(scores, tmp_path / "out.json", {("our table", "ours"), ("our table", "math-verify")})
    published = next(found for found in scores if found.grader == "math-verify")
    assert published.wrong_rewarded > 0  # what this table is for
    assert "error rates on our own pairs" in capsys.readouterr().out


@pytest.mark.model
def test_the_search_graders(tmp_path):
    scores = graders.main(["search", "--quick", "--json", str(tmp_path / "out.json")])
    check(
        scores, tmp_path / "out.json", {("our pairs, exact match", "ours"), ("our pairs, exact match", "transformers")}
    )


def test_a_grader_that_errs_is_counted_by_cause():
    pairs = [graders.Pair("1", "1", True, "a"), graders.Pair("1", "2", False, "b"), graders.Pair("1", "3", False, "b")]
    found = graders.score("c", "g", pairs, lambda reference, answer: answer != "1")
    assert (found.pairs, found.agree, found.wrong_rewarded, found.right_refused) == (3, 0, 2, 1)
    assert found.causes == {"right refused: a": 1, "wrong rewarded: b": 2}


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        graders.main(["--help"])
    assert "The source of truth" in capsys.readouterr().out
