"""docs/study.md from the results: what was asked, what came out, and the command for it. Nothing is written by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .cells import TUNING_SEED, Results
from .figures import draw_gaps
from .questions import QUESTIONS
from .questions.comparing import told
from .questions.question import Scale, TrainingQuestion
from .settings import SETTINGS
from .sizes import SIZES, size_of

__all__ = ["write_report"]

HEAD = """\
# The study

What the papers behind this project claim, tried at equal cost with models and tasks that fit one core. This page is
generated from results (`python -m benchmarks.study report`), which are kept in `benchmarks/study/results`. `make study`
runs the rest; a command under a figure first runs what is left of its question, which can take hours. What follows from
all this for a user stands in `docs/which_method.md`.

Every method starts from the same model in a setting (its weights' hash is kept with a run, and runs from two models are
refused) and spends the same number of sampled tokens, by the rollouts' own ledger. Its learning rate is the best of a
small grid, by runs of half the budget on two seeds (in tables six) that are used for nothing else: three rates, and
further ones while the best lies at their edge, up to 1 in tables, where most methods are best (question 7 says what
lies beyond). So few seeds cannot tell neighbouring rates apart: take a rate as known up to a factor of three. Compared
is the mean of the learning curve (success, averaged over the tokens spent): many runs end at the same success, and not
as soon. A number is the median over runs with its bootstrap 95 % interval; beside it is the interquartile mean (IQM),
the mean of the middle half of the runs; "P(better)" is the probability that a run is better than one of the method
compared with, ties counting half; "fell" counts runs that ended with less success than they began with. Intervals, IQM,
probabilities and profiles are rliable's, with whose package they agree (`.ci/peers rliable`).

Every verdict is made by one rule, of the difference of the medians, for which runs of one seed are drawn together.
**Better** or **worse**: its interval leaves out zero, and a test by ranks (Wilcoxon's from 8 pairs on, else Mann and
Whitney's) finds that equals would differ as much in less than one of twenty cases. **Inconclusive**: the interval
leaves out zero, but the test does not confirm it (intervals of few runs are too narrow, and one setting of many can
make a mean). **No difference shown**: the interval holds zero, which is not to say that there is none. Over three
settings and more, "not without" names those without any one of which the verdict would be another. Where methods took
different rates it says so, as that may be the difference.

| setting | what it is |
|---|---|
| math, math-hard | `MathVerifier`, one operation a call, 4 and 6 numbers; a model that imitated sloppy play |
| sokoban, sokoban-hard | Sokoban in text: states recur, some pushes cannot be undone; 4 by 4, and 5 by 5 places |
| sokoban-aliased | the same with signatures that forget where the player is |
| search-qa, search-qa-hard | `SearchQA` on a small world told in lists of facts; questions of 2 and of 3 hops |
| code-repair, code-repair-hard | `CodeRepair` of one line that its report spells out, with 2 and 3 operators |
| decisive | 12 steps of which one decides |
| irrecoverable | any of 8 steps can lose, and nothing shows until the end |
| misleading | a short cut that wins now and then hides a long way that wins always |
| aliased | 5 of 8 steps must be right, and signatures forget how many were |

The last four are tables (`benchmarks/trained_loss.py`), whose success is computed, not sampled. Their grader errs on
purpose: it rejects 3 in 10 successes and accepts 1 in 100 failures, so that 0.70 is the best there is. `decisive-short`
and `-long` have 6 and 24 steps, in `-rare` 1 action in 50 is right. Settings with `-hard`, and these three, are made
to start from a success of 0.02 to 0.08, the others from 0.2 to about 0.4.
"""

LIMITS = """\
## Limits

- Models of 0.7 million parameters and tables: what holds here need not hold for large ones.
- In tables every state has weights of its own, so that noise in one state harms no other, and most methods took the
  largest rate, 1: there a few lucky episodes decide a run, for good or bad, and intervals are wide.
  All trees of a table are of one task: choosing tasks has nothing to choose there.
- All runs of a setting begin with one and the same model; seeds differ in tasks, sampling and updates. Imitation makes
  another model on another kind of processor: there the study passes over the settings with kept runs, says so, and goes
  on with the tables; `--folder` begins anew.
- Tasks of code repair are one kind of bug in one line, and their reports say what is right. Grading takes longer than
  the model: some 0.1 seconds an episode, beyond the core that is counted.
- All questions of search QA are about one world of 33 documents, which a model can learn by heart.
- Credit against the truth with forks is measured in tables alone, where the truth is exact.
- Larger models and GPUs (`--size 20m`, `--size 100m`, `--device cuda`, which computes in bf16): whatever was not run
  says so in its section. Learning rates and those of imitation are the tiny model's times the ratio of the widths, and
  were not tuned again; nothing says that a start is as good as the tiny one's. Tables have no size and are left out.
- A run whose policy collapses into episodes as long as the model's window takes 6 GB and more: an update computes 64 of
  them, 48 KB a token in the tiny model, and the C library keeps what is freed. Count that for every one of `--jobs`.
- Held-out tasks are few (64 to 256), and every run meets the same; rates are tuned by them, too.
- The largest rate of tables, the critic's guard and its warm-up were settled after results with the same seeds and
  settings had been seen; nothing was run anew with others. Methods whose best rate lay at the edge of the first three
  were tried at more.
- `decisive` comes in five forms and `irrecoverable`, `misleading`, `aliased` in two: a mean over settings counts kin.
- A curve has five points. In tables many runs are at their best by the second, and no curve can be higher than 0.62.
- The step that passes the budget is the last, so that large groups and long episodes overspend; how much, stands above.
- Verdicts are hundreds, and nothing corrects for that: of twenty comparisons of equals, one says that they differ. A
  verdict over several settings that rests on no single one says most.
- Runs were made by several versions of the code; `python -m benchmarks.study again` runs one of every setting and
  version again.
"""


SHORT = """\
Of training: by how much the mean of the learning curve differs (medians, mean over the settings in which both were
run, with how many these are), and its interval. What a single setting shows, and where rates differ, stands in the
sections."""

COMMAND = "    python -m benchmarks.study report"
QUICK = "**All numbers on this page are of `--quick`, which only shows that everything runs: they mean nothing.**"
LARGER = (2, 4, 5)
"""Questions that are to be answered with larger models too."""
ON_GPU = Scale(20, size="20m", device="cuda")


def write_report(results: Results, scale: Scale, docs: Path) -> Path:
    """Writes the page and its figures, and returns the page.

    Args:
        results: what was run.
        scale: how much of it to read; what was run with other sizes and devices is told of as far as it goes.
        docs: the folder of the docs.
    """
    parts = [HEAD, QUICK] if scale.quick else [HEAD, _other_starts(results)]
    parts.append(_in_short(results, scale, docs / "images" / "study"))
    for number in sorted(QUESTIONS):
        question = QUESTIONS[number]
        parts.append(f"## {number}. {question.title}\n\n{question.asks}")
        section = question.report(results, scale, docs / "images" / "study")
        parts.append(section or f"**Not run yet.**\n\n    python -m benchmarks.study {number} report")
        parts += _elsewhere(number, results, scale, docs / "images" / "study")
    if len(results):
        broken = results.broken
        where = f" ({', '.join(f'{setting} {count}' for setting, count in broken.items())})" if broken else ""
        codes = ", ".join(sorted(results.codes))
        head = f"{len(results)} runs, those that tuned among them, {sum(broken.values())} of which broke{where}"
        there = {entry["setting"] for entry in results}
        left = ", ".join(name for name in SETTINGS if name not in there) or "none"
        parts.append(f"## Runs\n\n{head}; code {codes}. Settings without any: {left}. {_overspent(results)}".strip())
    page = docs / "study.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(part.strip("\n") for part in [*parts, LIMITS] if part) + "\n", encoding="utf-8")
    return page


def _trained(results: Results) -> list[dict[str, Any]]:
    """Returns the runs of training that went through, without those that tune."""
    return [e for e in results if e["kind"] == "train" and "error" not in e and e["seed"] < TUNING_SEED]


def _other_starts(results: Results) -> str:
    """Says which settings' runs began with another success than their setting is made for."""
    starts = {entry["setting"]: round(entry["curve"][0]["success"], 2) for entry in _trained(results)}
    ranges = {name: SETTINGS[name].share for name in starts if name in SETTINGS}
    off = [name for name, (low, high) in ranges.items() if not low <= starts[name] <= high]
    head = (
        "Imitation turned out otherwise on the machine that made a start, so that other runs begin elsewhere than that:"
    )
    return f"{head} {', '.join(f'{name} from {starts[name]:.2f}' for name in off)}." if off else ""


def _in_short(results: Results, scale: Scale, images: Path) -> str:
    """Draws and returns what every question's section shows, in a sentence or two each."""
    said = {number: QUESTIONS[number].in_short(results, scale) for number in sorted(QUESTIONS)}
    lines = [f"- {number}. *{QUESTIONS[number].title}* {words}" for number, words in said.items() if words]
    gaps = {
        f"{number}. {question.title}\nbeside {question.baseline}": [
            (f"{gap.method} ({len(gap.settings)})", gap.found, told(gap.found)) for gap in found
        ]
        for number, question in sorted(QUESTIONS.items())
        if isinstance(question, TrainingQuestion) and (found := question.gaps(results, scale))
    }
    if gaps:
        draw_gaps(gaps, images / "in_short")
        lines = ["![Differences over several settings](images/study/in_short.png)", "", COMMAND, "", *lines]
    return "\n".join(["## In short", "", SHORT, "", *lines]) if lines else ""


def _overspent(results: Results) -> str:
    """Says how many tokens beyond their budget runs spent that do not tune."""
    shares = [entry["ledger"]["tokens_sampled"] / entry["tokens"] - 1 for entry in _trained(results)]
    if not shares:
        return ""
    middle, high, most = np.quantile(shares, [0.5, 0.95, 1.0])
    return (
        f"Beyond their budget of tokens, runs that do not tune spent {middle:.1%} (median), one in twenty more than "
        f"{high:.1%}, the most {most:.1%}."
    )


def _elsewhere(number: int, results: Results, scale: Scale, images: Path) -> list[str]:
    """Returns a question's sections of other sizes and devices, and what to run for those that there are not."""
    parts, missing = list[str](), [name for name in SIZES if name != scale.size]
    for size, device in results.elsewhere():
        machines, seeds = results.about(size, device)
        here = replace(scale, size=size, device=device, seeds=seeds)
        if seeds and (section := QUESTIONS[number].report(results, here, images)):
            missing = [name for name in missing if (name, "cuda") != (size, device)]
            parts += [f"### With {size_of(size).said} parameters on {', '.join(machines)}", section]
    if missing and number in LARGER:
        said = " and ".join(size_of(name).said for name in missing)
        lines = [
            f"    python -m benchmarks.study {number} report{replace(ON_GPU, size=name).words} --seeds {ON_GPU.seeds}"
            for name in missing
        ]
        parts.append(f"With {said} parameters on a GPU: **not run.**\n\n" + "\n".join(lines))
    return parts
