"""The command: runs questions, and makes the page of their results."""

import argparse
import difflib
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

from .again import run_again
from .cells import ROOT, Cell, OtherStartError, Results, StudyError
from .questions import QUESTIONS
from .questions.question import Scale
from .report import write_report
from .runner import run_plan
from .sizes import DEVICES, SIZES, find_device

RESULTS, STARTS = ROOT / "benchmarks" / "study" / "results", ROOT / "runs" / "study"
_WORDS = (
    "numbers of questions, or all, to run; report: write the page; again: run one run of every setting and version of "
    "the code again, and say whether it comes out as before; several may be given"
)
_EXAMPLES = """\
examples, in the folder of the repository, with its environment active:
  python -m benchmarks.study all --plan                          # what is left to run, and how long it takes
  python -m benchmarks.study 5 report --quick --folder build/try # a question in little, with a page in build/try/docs
  python -m benchmarks.study report --docs build/page            # build/page/study.md from the results that are kept
"""
CHEAP = 10.0
"""Seconds."""


def main(words: list[str] | None = None) -> None:
    """Runs what is asked for."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(words)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}; {_meant(parser, rest)}")
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
    _say_what_is_left_out(results)
    if arguments.plan and not numbers:
        parser.error("--plan shows what is left of questions: name some, or all")
    if arguments.plan:
        _show(numbers, results, scale)
        return
    if "again" in arguments.questions and not run_again(
        results, arguments.starts, jobs=arguments.jobs, minutes=arguments.budget_minutes
    ):
        parser.exit(1)
    passed_over: OtherStartError | None = None
    try:
        if numbers:
            run_plan(
                plan,
                results,
                arguments.starts,
                jobs=arguments.jobs,
                minutes=arguments.budget_minutes,
                retry=arguments.retry,
            )
    except OtherStartError as error:  # told when the page is written
        passed_over = error
    if report or arguments.docs:
        _refuse_no_results(results)  # of what was run by now
        most = max(scale.seeds, results.about("tiny", "cpu")[1])  # the page tells of everything
        here = replace(scale, size="tiny", device="cpu", seeds=most)
        print(write_report(results, here, arguments.docs or _docs_of(arguments)))
    if passed_over is not None:
        raise passed_over


def _say_what_is_left_out(results: Results) -> None:
    if results.cut:
        what = "1 line that a crash cut off is" if results.cut == 1 else f"{results.cut} lines that a crash cut off are"
        print(f"{results.path}: {what} passed over; what ran there is to do again.")
    for name, count in results.gone.items():
        what = f"1 run of {name} is" if count == 1 else f"{count} runs of {name} are"
        print(f"{results.path}: {what} passed over: there is none of that name any more.")


def _refuse_no_results(results: Results) -> None:
    """Refuses to write a page of nothing, which could replace one of something."""
    if not len(results):
        remedy = "choose another --folder, or run a question first"
        msg = f"{results.path} must hold runs to be reported, it has none: {remedy}"
        raise StudyError(msg)


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
        epilog=f"questions:\n{asked}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = [*map(str, sorted(QUESTIONS)), "all", "report", "again"]
    parser.add_argument("questions", nargs="+", choices=names, help=_WORDS)
    parser.add_argument("--quick", action="store_true", help="tiny settings: a check that everything runs")
    parser.add_argument("--core", action="store_true", help="the most informative part of each question alone")
    help_seeds = "runs of every method; default: 10, but at most 5 where one takes more than a minute; 2 with --quick"
    parser.add_argument("--seeds", metavar="N", type=_positive, help=help_seeds)
    parser.add_argument(
        "--size", choices=SIZES, default="tiny", help="of the model, where a setting has one; default: %(default)s"
    )
    help_device = "where the model learns and plays; auto: a GPU where there is one; default: %(default)s"
    parser.add_argument("--device", choices=(*DEVICES, "auto"), default="cpu", help=help_device)
    help_jobs = "processes, one core each; default: %(default)s"
    parser.add_argument("--jobs", metavar="N", type=_positive, default=1, help=help_jobs)
    help_minutes = "begin no run later than that many minutes from now; default: no limit"
    parser.add_argument("--budget-minutes", metavar="MINUTES", type=_minutes, help=help_minutes)
    parser.add_argument("--retry", action="store_true", help="run those again that broke")
    parser.add_argument("--plan", action="store_true", help="say what there is to run, and run nothing")
    help_results = f"where results are kept, and read from; default: {_short(RESULTS)}"
    parser.add_argument("--folder", type=_folder, default=RESULTS, help=help_results)
    help_starts = f"of the starting models, made where they are not there; default: {_short(STARTS)}"
    parser.add_argument("--starts", metavar="FOLDER", type=_folder, default=STARTS, help=help_starts)
    help_docs = (
        f"write the page, study.md, and its figures here; default, for report: docs, or where --folder is another or "
        f"--quick is given, the folder docs in --folder ({_short(RESULTS)}/docs for --quick alone)"
    )
    parser.add_argument("--docs", metavar="FOLDER", type=_folder, help=help_docs)
    return parser


def _meant(parser: argparse.ArgumentParser, rest: list[str]) -> str:
    """Says which options are likely meant by words that are none."""
    options = list(dict.fromkeys(re.findall(r"--[a-z][a-z-]+", parser.format_usage())))
    found: list[str] = []
    for word in (one.partition("=")[0] for one in rest if one.startswith("--")):
        near = [option for option in options if len(word) > 3 and word[2:] in option]
        found += near or difflib.get_close_matches(word, options, n=1)
    return f"did you mean {' or '.join(dict.fromkeys(found))}?" if found else "--help lists what there is"


def _folder(word: str) -> Path:
    """Takes a folder that is there, or can be made."""
    path = Path(word)
    try:
        there = next((one for one in (path, *path.parents) if one.exists()), None)
    except OSError as error:
        msg = f"must be a folder, got {word!r}, which cannot be used ({error.strerror}): choose another"
        raise argparse.ArgumentTypeError(msg) from error
    if there is not None and not there.is_dir():
        msg = f"must be a folder, got {word!r}, and {there} is a file: choose another"
        raise argparse.ArgumentTypeError(msg)
    return path


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
