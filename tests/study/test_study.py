"""The study from end to end, in little: cells, training, truth by brute force, the page."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from agentenv.agents import ScriptedAgent
from agentenv.types import Action
from benchmarks.study.__main__ import main
from benchmarks.study.accuracy import TRUE, groups_of, score_groups, states_by
from benchmarks.study.cells import TUNING_SEED, Results, StudyError
from benchmarks.study.methods import ESTIMATORS, METHODS
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.questions.question import Scale
from benchmarks.study.runner import run_plan
from benchmarks.study.settings import SETTINGS, setting_of
from benchmarks.study.sokoban import MOVES, Sokoban, levels, random_values
from benchmarks.study.starts import start_of
from benchmarks.study.training import success_of_table
from benchmarks.study.truth import brute_force, sketches

pytestmark = pytest.mark.model
QUICK = Scale(seeds=1, quick=True)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two questions, end to end."""
    folder = tmp_path_factory.mktemp("study")
    main(
        [
            "5",
            "1",
            "--quick",
            "--seeds",
            "1",
            "--folder",
            str(folder),
            "--starts",
            str(folder),
            "--docs",
            str(folder / "docs"),
        ]
    )
    return folder


@pytest.fixture(scope="module")
def truth() -> Any:
    """Random play of two levels, whose values are known exactly."""

    def play(context: Any) -> Action:
        return Action(list(MOVES)[int(np.random.default_rng(context.seed).integers(len(MOVES)))])

    tasks = levels(2, size=3, least=1, most=2, spare=1)
    return brute_force(Sokoban, ScriptedAgent(play), tasks, rollouts=8, continuations=100, seed=1), tasks


def test_brute_force_finds_the_values_that_dynamic_programming_computes(truth):
    found, tasks = truth
    exact = [random_values(task) for task in tasks]
    row, errors = 0, list[float]()
    for t, size in enumerate(np.bincount(found.arrays.tree_ids)):
        places = []
        for node in found.trees[t].nodes[:size]:
            _, y, x, _, v, u = (node.observation[0]["content"].split() + [""] * 6)[:6]
            places.append(None if node.ended else ((int(y), int(x)), (int(v), int(u))))
        for node in range(1, size):
            parent = found.trees[t].nodes[node].parent
            made = len(found.trees[t].path(parent)) - 1
            errors.append(found.values[row + node] - exact[t][(*places[parent], made)])
        row += size
    assert len(errors) > 12
    assert np.abs(errors).max() < 5 * 0.5 / 100**0.5
    assert abs(np.mean(errors)) < 0.06


def test_advantages_are_zero_in_the_mean_and_end_in_outcomes(truth):
    found, _ = truth
    last = found.arrays.is_trajectory
    assert np.allclose((found.values + found.advantages)[last], found.arrays.returns[last])
    assert (found.advantages[found.arrays.is_root] == 0).all()


def test_groups_are_the_chains_split(truth):
    found, _ = truth
    arrays, origin, update = groups_of(found, 4, found.arrays.state_ids)
    assert arrays.num_trees == 4
    assert sorted(origin[~arrays.is_root]) == sorted(np.flatnonzero(~found.arrays.is_root))
    assert (arrays.rewards == found.arrays.rewards[origin]).all()
    assert set(update) == {0, 1}
    assert (found.arrays.parents[origin[~arrays.is_root]] == origin[arrays.parents[~arrays.is_root]]).all()


def test_the_truth_scores_best_and_states_by_observation_are_those_of_the_environment(truth):
    found, _ = truth
    gradients = np.random.default_rng(0).standard_normal((len(found.arrays), 64)).astype(np.float32)
    rows = {row["estimator"]: row for row in score_groups(found, gradients, 4, "exact", found.arrays.state_ids)}
    assert rows[TRUE]["r"] == pytest.approx(1.0)
    assert rows[TRUE]["mse"] == 0.0
    assert rows[TRUE]["sign"] == 1.0
    assert all(row["r"] <= 1.0 for row in rows.values())
    states = states_by(found)
    assert set(states) == {"exact", "coarse", "learned", "none"}
    assert len(set(states["none"])) == int((~found.arrays.is_root).sum()) + 2


def test_sketches_keep_inner_products():
    setting: Any = setting_of("decisive", quick=True)
    model, tokenizer = start_of(setting, Path())
    from agentenv.agents import TransformersAgent

    agent = TransformersAgent(model, tokenizer, max_new_tokens=2)
    found = brute_force(setting.make_env, agent, [None], rollouts=2, continuations=1, seed=0)
    made = sketches(found, model)
    steps: list[int] = np.flatnonzero(~found.arrays.is_root).tolist()
    first = [i for i in steps if found.arrays.parents[i] == 0]
    policy = np.full(3, 1 / 3)
    for i in first:  # the gradient of log pi(a | s) in the logits is 1_a - pi, in a row of the table by itself
        for j in first:
            nodes: Any = found.trees[0].nodes
            taken = [nodes[k].action.content for k in (i, j)]
            a, b = (np.eye(3)[int(name[1:])] - policy for name in taken)
            assert made[i] @ made[j] == pytest.approx(a @ b, abs=0.08 * 1.0)
    later = [i for i in steps if found.arrays.parents[i] != 0]
    assert abs(made[first[0]] @ made[later[-1]]) < 0.2  # of another state: another row


def test_the_success_of_a_table_is_that_of_its_problem():
    for name in ("misleading", "irrecoverable-hard"):
        setting: Any = SETTINGS[name]
        model, tokenizer = start_of(setting, Path())
        exact = setting.problem().values()[0]
        assert success_of_table(model, tokenizer, setting.problem()) == pytest.approx(exact, abs=1e-5)
        assert setting.share[0] <= exact <= setting.share[1] + 0.01


def test_every_run_spends_its_budget_and_no_more_than_a_step_beyond(run):
    results = Results(run / "quick.jsonl")
    cells = QUESTIONS[5].plan(results, QUICK)
    found = results.of(cells)
    assert len(found) == len(cells) == 8  # 2 methods by 2 settings, and 4 that tune
    for cell, entry in found:
        spent, steps = entry["ledger"]["tokens_sampled"], entry["ledger"]["steps_trained"]
        assert cell.tokens <= spent <= cell.tokens * steps / (steps - 1) + 1000 if steps > 1 else cell.tokens <= spent
        assert entry["curve"][-1]["tokens"] == spent
        assert entry["panel"] == setting_of(cell.setting, quick=True).panel
        assert entry["code"] in results.codes


def test_tuning_has_seeds_of_its_own_and_its_best_rate_is_taken(run):
    results = Results(run / "quick.jsonl")
    question: Any = QUESTIONS[5]
    tuned = question.tuning(results, "decisive", "graph values", QUICK)
    by_rate = {cell.rate: entry["metrics"]["mean"] for cell, entry in results.of(tuned)}
    cell = question.cell(results, "decisive", "graph values", 0, QUICK)
    assert by_rate[cell.rate] == max(by_rate.values())
    assert all(c.seed >= TUNING_SEED for c in tuned)
    assert cell.seed < TUNING_SEED
    assert question.cell(Results(run / "nothing.jsonl"), "decisive", "graph values", 0, QUICK) is None


def test_the_page_says_what_was_run_and_what_was_not(run):
    page = (run / "docs" / "study.md").read_text()
    sections = {int(part[0]): part for part in page.split("\n## ")[1:] if part[0].isdigit()}
    assert set(sections) == set(QUESTIONS)
    missing = {number for number, section in sections.items() if "Not run yet" in section}
    assert missing == {2, 3, 4, 6, 7}  # 7 ranks what has several runs
    assert "python -m benchmarks.study 5" in page
    assert "too few runs" in sections[5]
    for image in {part.split(")")[0] for part in page.split("](")[1:]}:
        for ending in ("png", "svg"):
            assert (run / "docs" / image).with_suffix(f".{ending}").stat().st_size > 1000


@pytest.mark.parametrize("torn", ["model.safetensors", "config.json"])
def test_a_start_that_cannot_be_read_is_no_result(run, tmp_path, torn):
    start = next(path for path in run.iterdir() if path.name.startswith("sokoban-"))
    copy = tmp_path / start.name
    shutil.copytree(start, copy)
    (copy / torn).write_bytes((copy / torn).read_bytes()[:100])
    results = Results(tmp_path / "results.jsonl")
    cells = [cell for cell in QUESTIONS[5].plan(results, QUICK) if cell.setting == "sokoban"]
    with pytest.raises(StudyError, match="remove the folder"):
        run_plan(lambda: cells, results, tmp_path, console=Console(quiet=True))
    assert len(results) == 0


def test_the_command_says_what_is_wrong_in_a_line(run, tmp_path, capsys):
    (tmp_path / "results.jsonl").write_text("nonsense\n{}\n")
    for words, said in [
        (["report", "--folder", str(tmp_path)], "line 1"),
        (["5", "--quick", "--folder", str(run / "quick.jsonl")], "quick.jsonl"),
        (["5", "--budget-minutes", "nan"], "above 0"),
        (["5", "--budget-minutes", "-1"], "above 0"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code
        assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("words", [[], ["--quick"], ["1", "--budget-minutes", "1e-9"], ["--docs only"]])
def test_no_page_is_written_of_no_results(tmp_path, capsys, words):
    """Nor is one of something replaced by one of nothing."""
    page = tmp_path / "kept" / "study.md"
    page.parent.mkdir()
    page.write_text("what was")
    named = ["--folder", str(tmp_path / "tpyo"), "--docs", str(page.parent)]
    asked = ["1", "--budget-minutes", "1e-9"] if words == ["--docs only"] else ["report", *words]
    with pytest.raises(SystemExit) as ended:
        main([*asked, *named])
    assert ended.value.code == 1
    assert re.search(r"tpyo/\w+\.jsonl must hold runs .* it has none: choose another --folder", capsys.readouterr().err)
    assert page.read_text() == "what was" and [page] == list(page.parent.iterdir())


@pytest.mark.parametrize("option", ["--folder", "--starts", "--docs"])
@pytest.mark.parametrize("kind", ["file", "fifo", "below"])
def test_what_is_no_folder_is_refused_at_once(tmp_path, capsys, option, kind):
    place = tmp_path / "place"
    (os.mkfifo if kind == "fifo" else Path.touch)(place)
    with pytest.raises(SystemExit) as ended:
        main(["report", option, str(place / "x" if kind == "below" else place)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: must be a folder" in said and f"{place} is a file: choose another" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--minutes", "3"], "did you mean --budget-minutes?"),
        (["--pl"], "did you mean --plan?"),
        (["--fodler=x"], "did you mean --folder?"),
        (["--xyzzy"], "--help lists what there is"),
    ],
)
def test_options_are_whole_and_nearly_right_ones_are_told(capsys, words, hint):
    with pytest.raises(SystemExit) as ended:
        main(["all", *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(hint)


def test_the_examples_of_the_help_work(run, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    examples = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("  python -m")]
    assert len(examples) == 3 and all(one[:3] == ["python", "-m", "benchmarks.study"] for one in examples)
    monkeypatch.chdir(tmp_path)  # folders in examples are below the one they are typed in
    shutil.copytree(run, tmp_path / "build" / "try")  # whose question was run already, but for a second seed
    monkeypatch.setattr("benchmarks.study.__main__.STARTS", run)
    monkeypatch.setattr("benchmarks.study.__main__.RESULTS", run / "kept")
    monkeypatch.setattr("benchmarks.study.__main__._short", str)
    (run / "kept").mkdir()
    (run / "kept" / "results.jsonl").write_bytes(b"".join((run / "quick.jsonl").read_bytes().splitlines(True)[:3]))
    for words in examples:
        main(words[3:])
    assert (tmp_path / "build" / "try" / "docs" / "study.md").is_file()
    assert (tmp_path / "build" / "page" / "study.md").is_file()


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 line that a crash cut off is"), (2, "2 lines that a crash cut off are")]
)
def test_lines_and_runs_that_are_passed_over_are_counted_in_words(run, tmp_path, capsys, count, said):
    whole = (run / "quick.jsonl").read_text()
    old = json.dumps(json.loads(whole.splitlines()[0]) | {"setting": "chess", "key": "old"})
    (tmp_path / "quick.jsonl").write_text(whole + f"{old}\n" + '{"cut": \n' * count)
    main(["report", "--quick", "--folder", str(tmp_path)])
    out = capsys.readouterr().out
    assert said in out and "1 run of setting chess is passed over: there is none of that name any more" in out
    assert "chess" not in (tmp_path / "docs" / "study.md").read_text()


def test_the_page_of_other_results_is_not_put_into_the_docs(run, tmp_path, capsys):
    (tmp_path / "quick.jsonl").write_bytes((run / "quick.jsonl").read_bytes())
    main(["report", "--quick", "--seeds", "1", "--folder", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "docs" / "study.md")
    assert "they mean nothing" in (tmp_path / "docs" / "study.md").read_text()


def test_nothing_is_run_twice(run, capsys):
    before = (run / "quick.jsonl").read_bytes()
    main(["5", "1", "--quick", "--seeds", "1", "--folder", str(run)])
    assert (run / "quick.jsonl").read_bytes() == before
    main(["5", "--quick", "--seeds", "1", "--plan", "--folder", str(run)])
    assert "8 of 8 runs done" in capsys.readouterr().out


@pytest.mark.parametrize("number", [n for n in QUESTIONS if n not in {1, 7}])
def test_questions_name_methods_and_settings_that_there_are(number):
    question: Any = QUESTIONS[number]
    assert {*question.methods, *question.core_methods, question.baseline} <= METHODS.keys()
    assert {*question.settings, *question.core_settings} <= SETTINGS.keys()
    assert set(question.core_methods) <= set(question.methods)
    for name in question.methods:
        assert METHODS[name]["estimator"] in ESTIMATORS or METHODS[name]["trainer"] != "tree"
