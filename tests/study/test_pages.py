"""What the pages say of results that are known: made-up runs, in which who is better is decided beforehand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.study.cells import TUNING_SEED, Cell, Results
from benchmarks.study.figures import draw_curves
from benchmarks.study.methods import METHODS
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.questions.comparing import gaps_of, margin_of, other_rate, scores_of, told
from benchmarks.study.questions.defaults import at_one_rate, beyond
from benchmarks.study.questions.estimators import REGIMES
from benchmarks.study.questions.question import Scale
from benchmarks.study.report import write_report
from benchmarks.study.settings import QUICK, SETTINGS

pytestmark = pytest.mark.model
SCALE = Scale(seeds=4)
SETTING = "decisive-hard"
HEIGHTS = {
    (2, "GRPO"): 0.5,
    (2, "RTMC"): 0.4,
    (2, "graph values"): 0.7,
    (2, "GiGPO"): 0.5,
    (2, "RLOO"): 0.45,
    (2, "GRPO, groups of 4"): 0.2,
    (2, "RTMC, groups of 4"): 0.3,
    (5, "RLOO"): 0.45,
    (5, "RTMC"): 0.4,
    (5, "Dr.GRPO, TRACE, a quarter"): 0.6,
    (5, "RTMC, TRACE, a quarter"): 0.3,
}


def entry_of(height: float) -> dict[str, Any]:
    curve = [{"tokens": 0.0, "step": 0.0, "success": 0.1}, {"tokens": 8000.0, "step": 9.0, "success": height}]
    metrics = {"final": height, "mean": height, "start": 0.1}
    return {
        "curve": curve,
        "metrics": metrics,
        "quarters": {"effective_ratio": [0.8, 0.6, 0.4, 0.2], "critic/brier": [0.4, 0.3, 0.2, 0.1]},
        "ledger": {"steps": 90, "episodes": 9, "tokens_sampled": 8000},
        "cpu_seconds": 1.0,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def pages(folder) -> dict[int, str]:
    results = Results(folder / "results.jsonl")
    for (number, method), height in HEIGHTS.items():
        question: Any = QUESTIONS[number]
        for cell in question.tuning(results, SETTING, method, SCALE):
            results.add(cell, entry_of(height + (0.05 if cell.rate == 0.3 else 0.0)))
        for seed in range(SCALE.seeds):
            cell = question.cell(results, SETTING, method, seed, SCALE)
            assert cell.rate == 0.3  # the best of the grid
            results.add(cell, entry_of(height + 0.01 * seed))
    for cell in QUESTIONS[1].plan(results, SCALE):
        if cell.setting == SETTING:
            nearness = {"GRPO": 0.5, "Dr.GRPO": 0.5, "RLOO": 0.45, "GiGPO": 0.5, "RTMC (paper)": 0.4}
            rows = [
                {"estimator": name, "signature": "exact", "size": 8, "r": 1 - cosine, "cosine": cosine + 0.001 * i}
                | {"mse": 0.1, "sign": 0.5, "active": 1.0}
                for i, (name, cosine) in enumerate([*nearness.items(), ("RTMC, graph values", 0.9), ("(true)", 0.95)])
            ]
            forks = [
                {"estimator": "Dr.GRPO", "signature": f"exact, {share} in forks", "size": 8, "r": 0.5, "cosine": cosine}
                | {"mse": 0.1, "sign": 0.5, "active": 1.0}
                for share, cosine in (("a quarter", 0.601), ("half", 0.401))
            ]
            results.add(cell, {"rows": rows + forks})
    return {number: QUESTIONS[number].report(results, SCALE, folder / "images") for number in (1, 2, 5, 7)}


def row_of(page: str, *begin: str) -> list[str]:
    found = [line for line in page.splitlines() if line.startswith("| " + " | ".join(begin) + " |")]
    assert found, (begin, page)
    return [word.strip() for word in found[0].strip("|").split("|")]


def test_margins_are_told_by_regime_and_size_of_groups(pages):
    *_, rtmc, graph = row_of(pages[2], REGIMES[SETTING], "8")
    assert rtmc.startswith("-0.100 [")
    assert rtmc.endswith(": worse")
    assert graph.startswith("0.200 [")
    assert graph.endswith(": better")
    assert row_of(pages[2], REGIMES[SETTING], "4")[2].startswith("0.100 [")


def test_what_runs_cost_beside_their_tokens_is_told(pages):
    assert "90, 9, 1" in row_of(pages[2], "RTMC", "0.3")


def test_what_falls_as_a_policy_learns_is_of_the_whole_run(pages):
    """Else a method that has come far would have fewer mixed groups, whatever it chooses."""
    assert row_of(pages[5], "RTMC", "0.3")[7].startswith("0.500 [")


def test_what_lies_beyond_the_largest_rate_is_told_in_full(tmp_path):
    question: Any = QUESTIONS[2]
    results = Results(tmp_path / "results.jsonl")
    for seed in range(5):
        for method, gain in (("GRPO", 0.2), ("CRBC", -0.1)):
            for rate in (1.0, 10.0):
                cell = question.at(SETTING, method, seed, rate, SCALE)
                results.add(cell, entry_of(0.4 + 0.01 * seed + (gain if rate > 1 else 0.0)))
    for method, gain in (("GRPO", 0.2), ("CRBC", -0.1), ("RTMC", 0.0)):
        for rate in (0.3, 1.0) if method == "RTMC" else (1.0, 3.0):
            cell = question.at(SETTING, method, TUNING_SEED, rate, SCALE)
            results.add(cell, entry_of(0.4 + (gain if rate > 1 else 0.0)))
    page = beyond(results)
    assert "of 2 pairs of setting and method whose tuning once went on, 1 were best beyond it" in page
    assert row_of(page, SETTING, "GRPO")[5].startswith("0.200 [0.200")
    assert row_of(page, SETTING, "CRBC")[5].startswith("-0.100 [")


def test_methods_of_other_rates_are_compared_at_one(tmp_path):
    question: Any = QUESTIONS[2]
    results = Results(tmp_path / "results.jsonl")
    for seed in range(8):
        for method, rate, height in (("GRPO", 0.3, 0.2), ("GRPO", 1.0, 0.5), ("RTMC", 1.0, 0.4)):
            results.add(question.at(SETTING, method, seed, rate, SCALE), entry_of(height + 0.01 * seed))
    row = row_of(at_one_rate(results), SETTING)
    assert row[1].startswith("-0.100 [-0.100, -0.100]: worse")  # and not better, as at its own
    assert row[2:] == ["", "", "", ""]


def test_a_verdict_that_rests_on_one_setting_says_on_which():
    even, far = [0.5 + 0.01 * i for i in range(8)], [0.9 + 0.01 * i for i in range(8)]
    base: dict[str, list[float]] = dict.fromkeys(("first", "second", "third"), even)
    means = {"base": base, "one": base | {"second": far}, "all": {name: [x + 0.1 for x in even] for name in base}}
    one, everywhere = gaps_of(means, "base")
    assert told(one.found) == told(everywhere.found) == "better"
    assert (one.rests, one.alone) == (("second",), " (not without second)")
    assert (everywhere.rests, everywhere.alone) == ((), "")


def test_every_verdict_follows_one_rule(pages):
    """In a table, in the reading above it, over settings, and as a margin."""
    *_, chance, gap, verdict = row_of(pages[2], "RTMC", "0.3")
    assert chance.startswith("0.000 [")
    assert gap.startswith("-0.100 [")
    assert verdict == "worse"
    assert f"- {SETTING}: better: graph values. worse: RTMC; RLOO;" in pages[2]
    assert f"- RTMC: worse, {gap};" in pages[2]
    assert row_of(pages[2], REGIMES[SETTING], "8")[2] == f"{gap}: worse"


def test_runs_that_collapsed_are_counted_by_learning_rate(tmp_path):
    question: Any = QUESTIONS[3]
    results = Results(tmp_path / "results.jsonl")
    for method in ("GRPO", "SR-PPO, k = 1"):
        for cell in question.tuning(results, "misleading", method, SCALE):
            lost = method != "GRPO" and cell.rate == 1.0 and cell.seed % 2
            results.add(cell, entry_of(0.04 if lost else 0.6 if cell.rate == 0.3 else 0.5))
        for seed in range(SCALE.seeds):
            cell = question.cell(results, "misleading", method, seed, SCALE)
            results.add(cell, entry_of(0.5))
    page = question.report(results, SCALE, tmp_path)
    assert row_of(page, "misleading", "SR-PPO, k = 1")[2] == "0 of 6 at 0.1; 0 of 10 at 0.3; 3 of 6 at 1"
    assert "| misleading | GRPO | 0 of" not in page


def test_predictions_are_compared_with_the_share_of_successes(tmp_path):
    question: Any = QUESTIONS[4]
    results = Results(tmp_path / "results.jsonl")
    brier, success = [0.3, 0.25, 0.2, 0.15], [0.5, 0.5, 0.5, 0.25]
    for method in ("uniform/uniform", "active/active"):
        for cell in question.tuning(results, SETTING, method, SCALE):
            results.add(cell, entry_of(0.6 if cell.rate == 0.3 else 0.5))
        for seed in range(SCALE.seeds):
            entry = entry_of(0.5)
            if method != "uniform/uniform":
                entry["quarters"] |= {"predictor/brier": brier, "success": success}
            results.add(question.cell(results, SETTING, method, seed, SCALE), entry)
    page = question.report(results, SCALE, tmp_path)
    gains = [float(one.split()[0]) for one in row_of(page, SETTING, "active/active")[2:]]
    assert gains == pytest.approx([-0.05, 0.0, 0.05, 0.0375], abs=1e-3)
    assert f"| {SETTING} | uniform/uniform |" not in page


def test_a_difference_that_may_be_the_learning_rates_says_so():
    def run(method: str, rate: float) -> tuple[Cell, dict[str, Any]]:
        return Cell("train", SETTING, method, 0, 8000, rate), {}

    here = [run("GRPO", 0.3), run("RTMC", 0.3), run("GiGPO", 1.0)]
    assert other_rate(here, "RTMC", "GRPO") == ""
    assert other_rate(here, "GiGPO", "GRPO") == " (at another rate)"
    elsewhere = [(Cell("train", "math", method, 0, 8000, 1e-3), {}) for method in ("GRPO", "GiGPO")]
    assert other_rate(here + elsewhere, "GiGPO", "GRPO") == f" (at another rate in {SETTING})"
    table = [(cell, entry_of(0.5)) for cell, _ in here]
    assert margin_of(table, "GiGPO", "GRPO", SETTING).endswith(" (at another rate)")


def test_the_page_begins_with_what_several_settings_show(pages, folder, tmp_path):
    credit = QUESTIONS[1].in_short(Results(folder / "results.jsonl"), SCALE)
    assert credit.startswith("Settings, of 1, ")
    assert "RTMC (paper) 0 (1); RTMC, graph values 1 (0)." in credit
    assert "true)" not in credit
    question: Any = QUESTIONS[2]
    assert question.in_short(Results(folder / "results.jsonl"), SCALE) == ""  # one setting
    results = Results(tmp_path / "results.jsonl")
    heights = {"GRPO": 0.5, "RTMC": 0.4, "graph values": 0.7, "GiGPO": 0.5}
    for setting, method in ((s, m) for s in (SETTING, "decisive-long") for m in heights):
        for cell in question.tuning(results, setting, method, SCALE):
            results.add(cell, entry_of(heights[method] + (0.05 if cell.rate == 0.3 else 0.0)))
        for seed in range(SCALE.seeds):
            results.add(question.cell(results, setting, method, seed, SCALE), entry_of(heights[method] + 0.01 * seed))
    words = question.in_short(results, SCALE)
    assert words.startswith("Beside GRPO. Better: graph values 0.200 [")
    assert "Worse: RTMC -0.100 [" in words
    assert words.endswith("No difference shown: GiGPO 0.000 [0.000, 0.000] in 2.")
    as_made = entry_of(0.5)
    as_made["curve"][0]["success"] = 0.08
    results.add(Cell("train", "decisive-short", "GRPO", 0, 8000, 0.3), as_made)
    page = write_report(results, SCALE, tmp_path / "docs").read_text()
    assert "so that other runs begin elsewhere than that: decisive-hard from 0.10, decisive-long from 0.10." in page
    assert f"- 2. *{question.title}* {words}" in page
    drawn = page.index("![Differences over several settings](images/study/in_short.png)")
    assert page.index("## In short") < drawn < page.index("## 1. ")
    image = (tmp_path / "docs" / "images" / "study" / "in_short.svg").read_text()
    for said in ("graph values (2)", "RTMC (2)", "better", "worse", "no difference shown"):
        assert f"<!-- {said} -->" in image  # as matplotlib notes the texts that it draws


def test_forks_are_weighed_by_who_reads_the_trees(pages):
    _, graph, grpo, rtmc = row_of(pages[5], SETTING)
    assert graph == ""  # not run with forks
    assert grpo.startswith("0.150 [")
    assert rtmc.startswith("-0.100 [")


def test_what_forks_are_worth_to_an_update_is_told_by_who_reads_them(pages):
    assert row_of(pages[1], SETTING, "a quarter")[2:] == ["", "", "0.100 [0.100, 0.100]: better"]
    assert row_of(pages[1], SETTING, "half")[2:] == ["", "", "-0.100 [-0.100, -0.100]: worse"]


def test_runs_that_tuned_are_in_no_curve(pages, folder):
    question: Any = QUESTIONS[2]
    curves = scores_of(question.runs(Results(folder / "results.jsonl"), SCALE), "mean")
    assert {len(by[SETTING]) for by in curves.values()} == {SCALE.seeds}


def test_methods_that_only_later_panels_show_are_in_the_legend(tmp_path):
    def run(setting: str, method: str) -> tuple[Cell, dict[str, Any]]:
        return Cell("train", setting, method, 0, 8000), entry_of(0.5)

    draw_curves([run("math", "GRPO"), run("sokoban", "RTMC")], tmp_path / "curves")
    texts = (tmp_path / "curves.svg").read_text()
    assert "<!-- RTMC -->" in texts
    assert "<!-- GRPO -->" in texts


def test_the_order_of_credit_is_compared_with_the_order_of_learning(pages):
    _, _, both, r, cosine = row_of(pages[1], SETTING, "5")
    assert float(both.split()[0]) < -0.9
    assert "Shown to be one order, of 1 settings: r with the cosine in 0 (the reverse in 1);" in pages[1]
    assert float(cosine.split()[0]) > 0.9  # those with the better cosine learned faster
    assert float(r.split()[0]) < -0.9


def test_defaults_are_told_with_what_is_better_and_what_is_worse(pages):
    _, *best, better, worse = row_of(pages[7], SETTING)
    assert best[0].startswith("graph values 0.7")
    assert set(better.split("; ")) >= {"graph values", "GRPO"}
    assert all(name in worse for name in ("RTMC, groups of 4", "GRPO, groups of 4", "RTMC, TRACE, a quarter"))
    assert "graph" not in worse
    assert row_of(pages[7], "estimator", "RTMC", "graph values")[3].endswith(": better")
    assert "decisive-hard 0.3 (" in pages[7]


def test_a_rate_at_which_a_run_broke_is_not_chosen(tmp_path):
    question: Any = QUESTIONS[2]
    results = Results(tmp_path / "results.jsonl")
    cells = question.tuning(results, SETTING, "GRPO", SCALE)
    heights = {0.1: 0.2, 0.3: 0.3, 1.0: 0.6}
    for cell in cells:
        results.add(cell, {"error": "x"} if cell.rate == 1.0 and cell == cells[-1] else entry_of(heights[cell.rate]))
    assert question.cell(results, SETTING, "GRPO", 0, SCALE).rate == 0.3
    for cell in cells:
        if cell.rate < 1.0:
            results.add(cell, entry_of(float("nan")))
    assert question.cell(results, SETTING, "GRPO", 0, SCALE) is None  # no rate is left


def test_methods_have_one_name_each():
    assert len({json.dumps(method, sort_keys=True) for method in METHODS.values()}) == len(METHODS)


def test_equal_runs_are_told(tmp_path):
    question: Any = QUESTIONS[2]
    runs = [
        (Cell("train", SETTING, method, seed, 8000, 0.3), entry_of(0.5 + 0.01 * seed + (method == "RTMC")))
        for method in ("GRPO", "RLOO", "RTMC")
        for seed in range(3)
    ]
    assert "equal curves: GRPO = RLOO" in question._reading(runs)


def test_tables_are_tuned_on_six_seeds_that_no_run_has(tmp_path):
    question: Any = QUESTIONS[2]
    results = Results(tmp_path / "results.jsonl")
    seeds = {cell.seed for cell in question.tuning(results, SETTING, "GRPO", Scale())}
    assert seeds == set(range(TUNING_SEED, TUNING_SEED + 6))
    assert len({cell.seed for cell in question.tuning(results, "math", "GRPO", Scale())}) == 2


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.3, [0.1, 0.3, 1.0]),
        (1.0, [0.1, 0.3, 1.0]),  # the end of the ladder
        (0.03, [0.01, 0.03, 0.1, 0.3, 1.0]),
        (0.01, [0.01, 0.03, 0.1, 0.3, 1.0]),
    ],
)
def test_rates_go_on_until_the_best_lies_between_others(tmp_path, best, tried):
    question: Any = QUESTIONS[2]
    results = Results(tmp_path / "results.jsonl")
    while cells := [c for c in question.tuning(results, SETTING, "GRPO", SCALE) if c not in results]:
        assert question.cell(results, SETTING, "GRPO", 0, SCALE) is None
        for cell in cells:
            results.add(cell, entry_of(0.5 - 0.1 * abs(math.log10(cell.rate / best))))
    assert sorted({c.rate for c in question.tuning(results, SETTING, "GRPO", SCALE)}) == tried
    assert question.cell(results, SETTING, "GRPO", 0, SCALE).rate == best


def test_the_rates_that_are_tried_first_are_a_run_of_the_ladder():
    for setting in [*SETTINGS.values(), *QUICK.values()]:
        if len(setting.rates) > 1:
            at = setting.ladder.index(setting.rates[0])
            assert setting.ladder[at : at + len(setting.rates)] == setting.rates
