"""NeMo Gym: rows, the folder of a server, and an episode as its agent plays it."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from envs_for_tests import Guess

import agentenv as ae
from agentenv.errors import VerifierError
from agentenv.exports import nemo_gym_rows, write_nemo_gym
from agentenv.exports.nemo_gym_app import Session


class NoTools(ae.Env):
    """Speaks only."""


class Taken(Guess):
    """Has a tool of a name that the server needs."""

    @ae.tool
    def verify(self) -> str:
        """Verify."""
        return "no"


def test_rows_hold_what_the_agent_reads_and_begin_again_the_same():
    rows = nemo_gym_rows(Guess, 3, seed=5, agent="a")
    assert [row["episode"] for row in rows] == [{"seed": 5}, {"seed": 6}, {"seed": 7}]
    assert {row["agent_ref"]["name"] for row in rows} == {"a"}
    assert json.loads(json.dumps(rows)) == rows == nemo_gym_rows(Guess, 3, seed=5, agent="a")
    params = rows[0]["responses_create_params"]
    assert params["input"][-1]["role"] == "user"
    (tool,) = params["tools"]
    assert (tool["type"], tool["name"], tool["strict"]) == ("function", "guess", False)
    assert tool["parameters"]["required"] == ["number"]


def test_a_session_pays_what_its_steps_pay():
    env: Any = Guess()
    session = Session(env, seed=3)
    target = env.state.target
    assert "should be a valid integer" in session.call("guess", {"number": "many"})
    assert "correct" in session.call("guess", {"number": target})
    assert "The episode has ended" in session.call("guess", {"number": target})
    assert session.finish("done") == 1.0


def test_a_message_at_the_end_is_a_step(tmp_path):
    class Says(Guess):
        def on_text(self, text):
            return self.finish("ok", reward=0.25 if text == "42" else 0.0)

    assert Session(Says(), seed=0).finish("42") == 0.25
    assert Session(Says(), seed=0).finish("") == 0.0


def test_a_session_that_broke_stays_broken():
    class Breaks(Guess):
        def on_text(self, text):
            message = "gone"
            raise VerifierError(message)

    session = Session(Breaks(), seed=0)
    assert session.call("guess", {"number": 0}) == "higher"
    with pytest.raises(VerifierError, match="gone"):
        session.finish("so")
    for text in ("", "again"):
        with pytest.raises(VerifierError, match="gone"):
            session.finish(text)


def test_the_folder_of_a_server(tmp_path):
    folder = write_nemo_gym("agentenv/MathVerifier-v0", tmp_path / "math_verifier", 2, max_steps=3)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "app.py", "configs/math_verifier.yaml", "data/example.jsonl", "requirements.txt",
    ]  # fmt: skip
    text = (folder / "app.py").read_text()
    ast.parse(text)
    assert "nemo_gym_server('agentenv/MathVerifier-v0', max_steps=3)" in text
    rows = [json.loads(line) for line in (folder / "data" / "example.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in rows] == [{"seed": 0}, {"seed": 1}]
    assert rows[0]["agent_ref"]["name"] == "math_verifier_simple_agent"
    with pytest.raises(FileExistsError):
        write_nemo_gym("agentenv/MathVerifier-v0", folder)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (
            lambda p: write_nemo_gym("agentenv/MathVerifier-v0", p / "My Server"),
            "lower case letters, .* got 'My Server'",
        ),
        (lambda _: nemo_gym_rows(Guess, []), "must be a number of tasks of at least 1"),
        (lambda _: nemo_gym_rows(NoTools, 1), "NoTools has no tools"),
        (lambda _: nemo_gym_rows(Taken, 1), "Taken has a tool named 'verify', which the server needs itself"),
    ],
)
def test_what_is_wrong_is_named(write, words, tmp_path: Path):
    with pytest.raises(ValueError, match=words):
        write(tmp_path)
