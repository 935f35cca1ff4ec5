"""NeMo Gym's own server plays our environments: sessions are episodes, and a broken one has no reward."""

from importlib import import_module
from typing import Any
from unittest.mock import MagicMock

import pytest
from envs_for_tests import Guess

from agentenv.errors import VerifierError
from agentenv.exports import nemo_gym_rows, nemo_gym_server

pytestmark = pytest.mark.peers("nemo-gym")


class Fragile(Guess):
    """Breaks when it is asked for 13."""

    def finish(self, *words: Any, **named: Any):
        message = "the verifier is gone"
        raise VerifierError(message)


class Buggy(Guess):
    """Has a bug for 13."""

    def respond(self, action):
        if action.tool_calls and action.tool_calls[0].arguments == {"number": 13}:
            raise KeyError(13)
        return super().respond(action)


def client(cls):
    base, parts = import_module("nemo_gym.base_resources_server"), import_module("nemo_gym.server_utils")
    config = base.BaseResourcesServerConfig(host="127.0.0.1", port=8080, entrypoint="", name="")
    server = nemo_gym_server(cls)(config=config, server_client=MagicMock(spec=parts.ServerClient))
    return import_module("fastapi.testclient").TestClient(server.setup_webserver())


def response(*output):
    return {
        "id": "r", "created_at": 0.0, "model": "m", "object": "response", "output": list(output),
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def said(text):
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}


def target(row):
    env: Any = Guess()
    env.reset(seed=row["episode"]["seed"])
    return env.state.target


def test_two_sessions_are_two_episodes():
    parameters = import_module("nemo_gym.openai_utils").NeMoGymResponseCreateParamsNonStreaming
    rows = nemo_gym_rows(Guess, 2)
    for row in rows:
        parameters.model_validate(row["responses_create_params"])
    found = []
    for row, right in zip(rows, (True, False), strict=True):
        session = client(Guess)
        assert session.post("/seed_session", json=row).status_code == 200
        number = target(row) if right else target(row) - 1
        found.append(session.post("/guess", json={"number": number}).text)
        done = session.post("/verify", json=row | {"response": response(said("done"))})
        assert done.json()["reward"] == float(right)
        assert done.json()["episode"] == row["episode"]
    assert found == ["correct", "higher"]


def test_what_is_wrong_has_a_status_and_no_reward():
    (row,) = nemo_gym_rows(Fragile, 1)
    session = client(Fragile)
    assert session.post("/guess", json={"number": 1}).status_code == 409
    session.post("/seed_session", json=row)
    assert "should be a valid integer" in session.post("/guess", json={"number": "x"}).text
    broken = session.post("/guess", json={"number": target(row)})
    assert broken.status_code == 503
    assert "the verifier is gone" in broken.text
    assert "reward" not in session.post("/verify", json=row | {"response": response()}).json()


def test_one_session_plays_one_episode_after_the_other():
    rows = nemo_gym_rows(Guess, 3)
    session = client(Guess)
    for row, right in zip(rows, (True, False, True), strict=True):
        session.post("/seed_session", json=rows[0])  # given up for the next
        session.post("/guess", json={"number": target(rows[0])})
        session.post("/seed_session", json=row)
        session.post("/guess", json={"number": target(row) if right else target(row) - 1})
        assert session.post("/verify", json=row | {"response": response()}).json()["reward"] == float(right)
    assert session.post("/verify", json=rows[0] | {"response": response()}).status_code == 409


def test_odd_requests_are_named_and_odd_calls_are_mistakes():
    (row,) = nemo_gym_rows(Guess, 1)
    session = client(Guess)
    for episode in ([1], "one", 5, {"seed": "x"}, {"seed": -1}, {"seeds": 1}):
        answer = session.post("/seed_session", json=row | {"episode": episode})
        assert (answer.status_code, "episode" in answer.text) == (422, True), answer.text
        assert session.post("/guess", json={"number": 1}).status_code == 409
    session.post("/seed_session", json=row)
    for body in (b"{", b"[1]", b"\xff", b"[" * 50_000, b'{"number": NaN}', b'{"number": "\\ud83d"}'):
        answer = session.post("/guess", content=body)
        assert (answer.status_code, "guess(number: integer)" in answer.text) == (200, True), answer.text
    session.post("/guess", json={"number": target(row)})
    assert session.post("/verify", json=row | {"response": response()}).json()["reward"] == 1.0


def test_a_bug_has_a_status_and_no_reward():
    (row,) = nemo_gym_rows(Buggy, 1)
    session = client(Buggy)
    session.post("/seed_session", json=row)
    broken = session.post("/guess", json={"number": 13})
    assert (broken.status_code, "KeyError: 13" in broken.text) == (503, True)
    assert session.post("/guess", json={"number": target(row)}).status_code == 503
    assert "reward" not in session.post("/verify", json=row | {"response": response()}).json()
