"""`agentenv check`: a verdict per law, and an exit code."""

import json
import re

import pytest
from cli_runs import one_line_error, run
from envs_for_tests import call

from agentenv.testing import CLAUSES


def test_a_good_environment_passes_every_law():
    result = run("check", "agentenv/MathVerifier-v0", "--steps", 3)
    assert result.exit_code == 0, result.stdout
    rows = [line.split(None, 2) for line in result.stdout.splitlines()[1 : len(CLAUSES) + 1]]
    assert rows == [[clause.name, "passed", clause.law] for clause in CLAUSES]
    assert "none broken" in result.stdout


def test_a_broken_law_is_told_with_its_cause_and_the_exit_code_is_1(here):
    words = ["check", "dice_env:Careless", "--clause", "seeded", "--clause", "json"]
    result = run(*words)
    assert result.exit_code == 1
    assert "seeded failed: " in result.stdout and "randomness comes from elsewhere" in result.stdout
    assert "2 laws tried, 1 broken" in result.stdout
    as_json = run(*words, "--json")
    assert as_json.exit_code == 1
    assert '"outcome": "failed"' in as_json.stdout


def test_the_command_plays_what_it_is_given_and_says_what_it_did_not_reach(here):
    good = here / "good.jsonl"
    good.write_text("".join(json.dumps(action) + "\n" for action in [*[call("roll")] * 3, call("hold")]))
    result = run("check", "dice_env:Careless", "--clause", "ended", "--actions", good)
    assert "roll: " in result.stdout
    (here / "text.jsonl").write_text('"no call"\n')
    text = ["--actions", here / "text.jsonl"]
    bare = run("check", "dice_env:Careless", "--clause", "ended", *text)
    assert "warning: not reached, and so not checked: " in bare.stdout
    assert "a fork at step 0 costs " in bare.stdout
    as_json = run("check", "dice_env:Careless", "--clause", "ended", *text, "--json")
    assert [entry["name"] for entry in json.loads(as_json.stdout)] == ["ended"]
    assert "warning: not reached" in as_json.stderr
    (here / "bad.jsonl").write_text("5\n")
    refused = run("check", "dice_env:Careless", "--actions", here / "bad.jsonl")
    assert refused.exit_code == 2
    assert "--actions" in refused.stderr and "action must be a str" in refused.stderr


def test_a_mistake_in_the_module_is_told_as_one(here):
    tool = "class Other(ae.ToolEnv):\n    @ae.tool\n    def look(self) -> str:\n        return 'a'\n"
    (here / "no_words.py").write_text(f"import agentenv as ae\n{tool}class Mine(ae.ToolEnv):\n    pass\n")
    (here / "no_python.py").write_text("class Mine(:\n")
    line = one_line_error(run("check", "no_words:Mine"))
    assert "'ENV_ID': no_words:Mine cannot be imported: TypeError: tool Other.look needs a docstring" in line
    assert "no_python.py, line 1" in one_line_error(run("check", "no_python:Mine"))
    for module, said in (("no_words", "TypeError: tool Other.look needs a docstring"), ("no_python", "line 1")):
        assert said in one_line_error(run("check", f"{module}/Mine-v0")), "nor where the class is only looked for"


@pytest.mark.parametrize(
    ("number", "body", "said"),
    [
        (0, "\n1 / 0\n", r"ZeroDivisionError: division by zero \(wrong_0.py, line 2\)"),
        (1, "class Mine:\n    x = undefined\n", r"NameError: name 'undefined' is not defined \(wrong_1.py, line 2\)"),
        (
            2,
            "import no_such_package\n",
            r"ModuleNotFoundError: No module named 'no_such_package' \(wrong_2.py, line 1\)",
        ),
        (3, "def f(:\n", r"SyntaxError: invalid syntax \(wrong_3.py, line 1\)"),
        (4, "import json\n\njson.loads('{')\n", r"JSONDecodeError: .* \(wrong_4.py, line 3\)"),
        (5, "import beside_5\n", r"KeyError: 'missing' \(beside_5.py, line 2\)"),
    ],
)
def test_whatever_a_module_raises_is_told_with_its_line(here, number, body, said):
    (here / "beside_5.py").write_text("things = {}\nthings['missing']\n")
    (here / f"wrong_{number}.py").write_text(body)
    spec = f"wrong_{number}:Mine"
    environment = run("check", spec)
    agent = run(
        "rollout", "dice_env:Careless", "--agent", spec, "--tasks", 1, "--rollouts", 1, "--out", here / "no.jsonl"
    )
    for argument, result in (("ENV_ID", environment), ("--agent", agent)):
        assert result.exit_code == 2
        assert re.search(rf"'{argument}': {spec} cannot be imported: {said}", one_line_error(result))
    assert not (here / "no.jsonl").exists()
