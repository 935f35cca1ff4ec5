"""`agentenv envs`: the list, and all about one."""

from cli_runs import run, run_json

from agentenv.registry import env_ids


def test_the_list_names_every_registered_environment_with_its_tools():
    rows = {row["id"]: row for row in run_json("envs")}
    assert list(rows) == env_ids()
    assert rows["agentenv/MathVerifier-v0"]["tools"] == ["calculate", "submit"]
    assert rows["agentenv/MathVerifier-v0"]["max_steps"] == 16
    table = run("envs").stdout.splitlines()
    assert table[0].split() == ["id", "tools", "max", "steps", "about"]
    assert [line.split()[0] for line in table[1 : len(rows) + 1]] == env_ids()


def test_a_piped_table_has_one_line_per_row_however_long():
    assert max(map(len, run("envs", "agentenv/MathVerifier-v0").stdout.splitlines())) > 100
    assert "\x1b" not in run("envs").stdout


def test_one_environment_tools_in_words_options_and_an_example(here):
    text = run("envs", "dice_env:Dice").stdout
    assert "Dice-v0\nRolls up to a goal.\n" in text
    assert "roll  Roll once.\n    sides: integer, default 6. of the die.\n" in text
    lines = [line.split(None, 2) for line in text.splitlines()]
    assert ["goal", "ends"] not in [line[:2] for line in lines]  # it is no argument of the constructor
    assert ["bonus", "0"] in lines
    assert ["max_steps", "None", "overrides the class's limit."] in lines
    assert 'task {"id": "", "goal": 9}\n[user] Reach 9.\n' in text


def test_choices_are_told_wherever_the_schema_has_them(here):
    (here / "sides.py").write_text(
        "import enum\nfrom typing import Literal\nimport agentenv as ae\n"
        "class Side(enum.Enum):\n    ONE, YES = '1', 'true'\n"
        "class Sides(ae.ToolEnv):\n    def start(self, task):\n        return ''\n"
        "    @ae.tool\n"
        "    def take(self, one: Side, many: list[Side], any: Side | int | None = None, way: Literal['up'] = 'up'):\n"
        "        'Take sides.'\n"
    )
    text, choices = run("envs", "sides:Sides").stdout, 'one of "1", "true"'
    assert f"    one: {choices}\n    many: list of {choices}\n" in text
    assert f'    any: {choices} or integer or null, default null\n    way: one of "up", default "up"\n' in text


def test_options_and_seed_choose_the_example():
    words = ["envs", "agentenv/MathVerifier-v0", "--option", "kind=equation", "--option", "difficulty=1"]
    first, again, other = (run_json(*words, "--seed", seed)["example"] for seed in (1, 1, 2))
    assert first == again != other
    assert first["task"]["kind"] == "equation" and first["task"]["difficulty"] == 1
    assert first["observation"][0]["content"] == first["task"]["question"]
