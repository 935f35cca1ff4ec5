"""The command: runs questions, and makes the page of their results."""

import argparse
import os
import warnings
from dataclasses import replace
from pathlib import Path

from .again import run_again
from .cells import ROOT, Cell, Results, StudyError
from .questions import QUESTIONS
from .questions.question import Scale
from .report import write_report
from .runner import run_plan
from .sizes import DEVICES, SIZES, find_device

RESULTS, STARTS = ROOT / "benchmarks" / "study" / "results", ROOT / "runs" / "study"
_WORDS = (
    "numbers of questions, or all; report: write the page; again: run one run of every setting and version of the code "
    "again, and say whether it comes out as before"
)
CHEAP = 10.0
"""Seconds."""


def main(words: list[str] | None = None) -> None:
    """Runs what is asked for."""
    parser = _parser()
    arguments = parser.parse_args(words)
    warnings.filterwarnings("ignore")
    try:
        _run(parser, arguments)
    except StudyError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except BrokenPipeError:  # who reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        parser.exit(1)
    except OSError as error:
        remedy = "choose another folder by --folder, --starts or --docs"
        parser.exit(1, f"{parser.prog}: {error.filename} cannot be used ({error.strerror}): {remedy}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: interrupted; the same command goes on from here\n")


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    report = "report" in arguments.questions
    asked = [word for word in arguments.questions if word not in {"report", "again"}]
    numbers = sorted(QUESTIONS) if "all" in asked else list(dict.fromkeys(int(word) for word in asked))
    seeds = arguments.seeds or (2 if arguments.quick else 10)
    scale = Scale(seeds, arguments.quick, arguments.core, arguments.size, _device(arguments, parser))
    results = Results(arguments.folder / ("quick.jsonl" if arguments.quick else "results.jsonl"))

    def plan() -> list[Cell]:  # the core of every question comes before the rest of any
        scales = [scale] if scale.core or scale.quick else [replace(scale, core=True), scale]
        return [
            cell for one in scales for cell in _in_turn([QUESTIONS[number].plan(results, one) for number in numbers])
        ]

    if scale.elsewhere:
        print(f"With --size {scale.size} --device {scale.device}: tables have no size, and are left out.")
    if results.cut:
        print(f"{results.path}: {results.cut} lines that a crash cut off are passed over; their runs are to do again.")
    if arguments.plan and not numbers:
        parser.error("--plan shows what is left of questions: name some, or all")
    if arguments.plan:
        _show(numbers, results, scale)
        return
    if "again" in arguments.questions and not run_again(
        results, arguments.starts, jobs=arguments.jobs, minutes=arguments.budget_minutes
    ):
        parser.exit(1)
    if numbers:
        run_plan(
            plan,
            results,
            arguments.starts,
            jobs=arguments.jobs,
            minutes=arguments.budget_minutes,
            retry=arguments.retry,
        )
    if report or arguments.docs:
        most = max(scale.seeds, results.about("tiny", "cpu")[1])  # the page tells of everything
        here = replace(scale, size="tiny", device="cpu", seeds=most)
        print(write_report(results, here, arguments.docs or _docs_of(arguments)))


def _docs_of(arguments: argparse.Namespace) -> Path:
    """Returns where the page goes: into the docs if it is made of the results that are kept with the code."""
    kept = arguments.folder.resolve() == RESULTS.resolve() and not arguments.quick
    return ROOT / "docs" if kept else arguments.folder / "docs"


def _device(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """Finds the device; what only looks at plans and results needs none."""
    runs = not arguments.plan and arguments.questions != ["report"]
    try:
        return find_device(arguments.device) if runs or arguments.device == "auto" else arguments.device
    except ValueError as error:
        return parser.error(str(error))


def _in_turn(plans: list[list[Cell]]) -> list[Cell]:
    """Orders cells so that cheap ones come before dear ones, and each question's first setting before any's second."""
    turns: list[tuple[tuple[bool, int], Cell]] = []
    for cells in plans:
        turn = {setting: i for i, setting in enumerate(dict.fromkeys(cell.setting for cell in cells))}
        turns += [((cell.cost > CHEAP, turn[cell.setting]), cell) for cell in cells]
    return [cell for _, cell in sorted(turns, key=lambda pair: pair[0])]


def _parser() -> argparse.ArgumentParser:
    asked = "\n".join(f"  {number}  {QUESTIONS[number].title}" for number in sorted(QUESTIONS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study",
        description=__doc__,
        epilog=f"questions:\n{asked}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*map(str, sorted(QUESTIONS)), "all", "report", "again"]
    parser.add_argument("questions", nargs="+", choices=names, help=_WORDS)
    parser.add_argument("--quick", action="store_true", help="tiny settings: a check that everything runs")
    parser.add_argument("--core", action="store_true", help="the most informative part of each question alone")
    parser.add_argument(
        "--seeds", type=_positive, help="runs of every method; 10, but at most 5 where one takes more than a minute"
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the model, where a setting has one")
    parser.add_argument("--device", choices=(*DEVICES, "auto"), default="cpu", help="where the model learns and plays")
    parser.add_argument("--jobs", type=_positive, default=1, help="processes, one core each")
    parser.add_argument("--budget-minutes", type=_minutes, help="begin no run later than that")
    parser.add_argument("--retry", action="store_true", help="run those again that broke")
    parser.add_argument("--plan", action="store_true", help="say what there is to run, and run nothing")
    parser.add_argument("--folder", type=Path, default=RESULTS, help=f"of results; {_short(RESULTS)}")
    help_starts = f"folder of the starting models, made where they are not there; {_short(STARTS)}"
    parser.add_argument("--starts", type=Path, default=STARTS, help=help_starts)
    parser.add_argument("--docs", type=Path, help="write study.md and its figures here; docs, or those of --folder")
    return parser


def _short(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        msg = f"must be a whole number of at least 1, got {word!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(word)


def _minutes(word: str) -> float:
    try:
        minutes = float(word)
    except ValueError:
        minutes = float("nan")
    if not minutes > 0:
        msg = f"must be a number of minutes above 0, got {word!r}"
        raise argparse.ArgumentTypeError(msg)
    return minutes


def _show(numbers: list[int], results: Results, scale: Scale) -> None:
    for number in numbers:
        cells = QUESTIONS[number].plan(results, scale)
        left = [cell for cell in cells if cell not in results]
        hours = sum(cell.cost for cell in left) / 3600
        said = "core-hours" if scale.device == "cpu" else "hours, a guess: no GPU was measured"
        done = len(cells) - len(left)
        print(f"question {number}: {done} of {len(cells)} runs done, the rest takes about {hours:.1f} {said}")


if __name__ == "__main__":
    main()
