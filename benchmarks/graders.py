"""How often graders are wrong: the math, search and repair graders, on pairs of our own and on published ones.

python benchmarks/graders.py math                 # our table, and what installed packages ship
python benchmarks/graders.py math --sdist         # also math-verify's own tests (downloads its source from the index)
python benchmarks/graders.py search               # our pairs, beside three published scorers
python benchmarks/graders.py repair               # cheats and honest repairs of one task (opens sandboxes)
python benchmarks/graders.py all --json out.json  # everything, and the numbers as JSON
python benchmarks/graders.py all --quick          # a tenth of every collection, no repair

Each line is a grader on a collection: how many pairs, in how many it agrees with the source of truth, how many WRONG
answers it rewards (the worse error), how many RIGHT ones it refuses, and pairs a second. Below stands, by cause, where
our grader disagrees. The source of truth is what the collection says: for our tables mathematics or a convention, by
name, in the file; for a package's collection its own scorer, which may itself be wrong.

Collections that need a package (reasoning-gym, skyrl-gym, torchmetrics, transformers) are left out, by name, where
it is not installed; sympy ships the pairs of its LaTeX parser's tests.
"""

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from agentenv.envs.code_repair import Grader, collect_submission
from agentenv.envs.code_repair.submissions import spec_of
from agentenv.envs.math_verifier import Verifier, WorkerPool
from agentenv.envs.search_qa.scoring import exact_match, normalize_answer, sub_match
from agentenv.errors import TaskError
from agentenv.sandboxes import open_sandbox

ROOT = Path(__file__).parents[1]
MATH_PAIRS = ROOT / "tests/envs/math_verifier/pairs.jsonl"
REASONING_GYM = (
    "basic_arithmetic chain_sum decimal_arithmetic decimal_chain_sum fraction_simplification gcd lcm products"
    " prime_factorization simple_equations polynomial_equations polynomial_multiplication complex_arithmetic"
    " simple_integration intermediate_integration simple_geometry advanced_geometry power_function leg_counting"
    " count_primes number_sequence calendar_arithmetic dice"
)


@dataclass(frozen=True)
class Pair:
    """A reference, or several accepted ones, an answer, whether it is right, and what decides that."""

    reference: Any
    answer: str
    right: bool
    truth: str


@dataclass
class Score:
    """What a grader made of a collection."""

    collection: str
    grader: str
    pairs: int = 0
    agree: int = 0
    wrong_rewarded: int = 0
    right_refused: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    causes: Counter[str] = field(default_factory=Counter[str])
    examples: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """Returns the line of the table."""
        rate = self.pairs / self.seconds if self.seconds else 0.0
        return (
            f"{self.collection:<34} {self.grader:<14} {self.pairs:>6} {self.agree:>6}"
            f" {self.wrong_rewarded:>9} {self.right_refused:>8} {self.unreadable:>7} {rate:>9.0f}"
        )


HEADER = (
    f"{'collection':<34} {'grader':<14} {'pairs':>6} {'agree':>6} {'w.reward':>9} {'r.refuse':>8} {'no ref.':>7}"
    f" {'pairs/s':>9}"
)


def score(collection: str, grader: str, pairs: Iterable[Pair], decide: Callable[[Any, str], bool]) -> Score:
    """Counts where a grader says something else than the source of truth.

    A reference that the grader refuses to read (`TaskError`) is no verdict: it is counted apart.
    """
    found = Score(collection, grader)
    for pair in pairs:
        start = time.perf_counter()
        try:
            verdict = decide(pair.reference, pair.answer)
        except TaskError as error:
            found.unreadable += 1
            found.examples.append(f"cannot be read: {error!s:.300}")
            continue
        finally:
            found.seconds += time.perf_counter() - start
        found.pairs += 1
        if verdict == pair.right:
            found.agree += 1
            continue
        found.wrong_rewarded += verdict
        found.right_refused += not verdict
        kind = "wrong rewarded" if verdict else "right refused"
        found.causes[f"{kind}: {pair.truth}"] += 1
        found.examples.append(f"{kind}: {pair.reference!r:.70} <- {pair.answer!r:.70} ({pair.truth})")
    return found


def load(path: str) -> Any:
    """Returns a module of the tests, by its path."""
    spec = importlib.util.spec_from_file_location(f"graders_{Path(path).stem}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def optional(name: str, package: str) -> Any | None:
    """Returns a module, or says which package has it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        print(f"left out: {name} ({error}); pip install {package}")
        return None


# ---------------------------------------------------------------------- math


def our_math_pairs() -> list[Pair]:
    """Returns the table of `tests/envs/math_verifier/pairs.jsonl`."""
    rows = map(json.loads, MATH_PAIRS.read_bytes().splitlines())
    return [Pair(row["reference"], row["answer"], row["right"], row["truth"]) for row in rows]


def sympy_pairs() -> Iterator[Pair]:
    """Yields what sympy's own tests of its LaTeX parsers expect: LaTeX, and the expression as sympy writes it."""
    sympy: Any = importlib.import_module("sympy")
    lists: list[tuple[str, list[Any]]] = []
    for name in ("test_latex", "test_latex_lark"):
        module = optional(f"sympy.parsing.tests.{name}", "sympy")
        if module is not None:
            lists += [(key, value) for key, value in vars(module).items() if key.endswith("PAIRS")]
    seen: set[tuple[str, str]] = set()
    for name, pairs in lists:
        expected = [(text, sympy.sympify(value)) for text, value, *_ in pairs]
        for i, (text, value) in enumerate(expected):
            other = expected[i - 1][1]
            for answer, right in ((value, True), (other, False)):
                shown = sympy.latex(answer.doit(), ln_notation=True)
                same = right or answer.doit() == value.doit()
                if (text, shown) not in seen and (right or not same):
                    seen.add((text, shown))
                    yield Pair(text, shown, same, name.lower())


def reasoning_gym_pairs(size: int) -> Iterator[Pair]:
    """Yields answers that reasoning-gym's scorers judged: the right one, and those of the next two problems."""
    gym = optional("reasoning_gym", "reasoning-gym")
    if gym is None:
        return
    for name in REASONING_GYM.split():
        problems: Any = gym.create_dataset(name, size=size, seed=7)
        entries = [problems[i] for i in range(size)]
        for i, entry in enumerate(entries):
            if problems.score_answer(entry["answer"], entry) != 1.0:
                continue
            for other in (entry, *(entries[(i + j) % size] for j in (1, 2))):
                answer = str(other["answer"])
                yield Pair(str(entry["answer"]), answer, problems.score_answer(answer, entry) == 1.0, name)


def math_verify_pairs(version: str) -> list[Pair]:
    """Returns the pairs in math-verify's own tests, with the verdict of math-verify that its tests assert."""
    program = """
import json, sys
import math_verify, pytest
parse, verify, found = math_verify.parse, math_verify.verify, []
class Parsed(list): pass
def recording(text, *rest, **options):
    parsed = Parsed(parse(text, *rest, **options)); parsed.text = text
    given = (list(rest) + list(options.values()) + [[]])[0]
    priorities = [getattr(config, "boxed_match_priority", 0) for config in given]
    parsed.usual = set(priorities) <= {0, 50} and not any("String" in type(config).__name__ for config in given)
    return parsed
def verifying(gold, target, *rest, **options):
    right = verify(gold, target, *rest, **options)
    known = isinstance(gold, Parsed) and isinstance(target, Parsed) and gold.usual and target.usual and not rest
    if known and options.get("strict", True) and not options.get("allow_set_relation_comp"):
        found.append((gold.text, target.text, bool(right)))
    return right
math_verify.parse, math_verify.verify = recording, verifying
pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", sys.argv[1], sys.argv[1] + "/tests"])
open(sys.argv[2], "w").write(json.dumps(found))
"""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder]
        subprocess.run([*pip, f"math-verify=={version}"], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        source = next(Path(folder).glob("*/tests")).parent
        found = Path(folder) / "found.json"
        run = [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(source)!r})\n{program}",
            str(source),
            str(found),
        ]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        triples = json.loads(found.read_text())
    return [Pair(gold, answer, right, "math-verify") for gold, answer, right in dict.fromkeys(map(tuple, triples))]


def published_math(pairs: Sequence[Pair]) -> Iterator[Score]:
    """Yields how published graders do on our table."""
    math_verify: Any = importlib.import_module("math_verify")

    def by_math_verify(reference: str, answer: str) -> bool:
        texts = (
            text if "$" in text or "boxed" in text or " is " in text else f"${text}$" for text in (reference, answer)
        )
        gold, target = map(math_verify.parse, texts)
        return bool(math_verify.verify(gold, target))

    yield score("our table", "math-verify", pairs, by_math_verify)
    aime = optional("skyrl_gym.envs.aime.utils", "skyrl-gym")
    if aime is not None:
        yield score("our table", "skyrl-gym aime", pairs, lambda r, a: bool(aime.verify(f"Answer: {a}", r)[0]))


def math(arguments: argparse.Namespace) -> Iterator[Score]:
    """Yields the scores of the math grader."""
    step = 10 if arguments.quick else 1
    pairs = our_math_pairs()[::step]
    with WorkerPool() as pool:
        verifier = Verifier(pool)
        verifier.check("x+1", "1+x")  # starts the processes
        yield score("our table", "ours", pairs, verifier.check)
        yield from published_math(pairs)
        yield score("sympy's LaTeX tests", "ours", list(sympy_pairs())[::step], verifier.check)
        gym = list(reasoning_gym_pairs(5 if arguments.quick else 50))
        if gym:
            yield score("reasoning-gym", "ours", gym, verifier.check)
        if arguments.sdist:
            yield score("math-verify's tests", "ours", math_verify_pairs(arguments.version), verifier.check)


# ---------------------------------------------------------------------- search


SEARCH_PAIRS = """
en dash|1914–1918|1914-1918|0
accents are kept|Beyonce|Beyoncé|0
accents are kept|Beyoncé|beyoncé|1
numbers are words|twenty|20|0
thousands marks are punctuation|1,000|1000|1
full-width letters are other letters|ＮＡＳＡ|NASA|0
an article inside|The Lord of the Rings|Lord of Rings|1
a word is missing|Barack Hussein Obama|Barack Obama|0
a hedge is not the answer|Paris or London|Paris|0
a negation is not the answer|not Paris|Paris|0
trailing full stop|Paris.|Paris|1
quotes|"Paris"|Paris|1
brackets|Paris (France)|Paris France|1
white space|New\tYork|New York|1
initials|J. K. Rowling|J K Rowling|1
initials without spaces|J.K. Rowling|J K Rowling|0
ordinal|2nd|second|0
an empty answer||Paris|0
punctuation alone|...|Paris|0
an apostrophe|O'Brien|OBrien|1
"""


def our_search_pairs() -> list[Pair]:
    """Returns the hard pairs of the tests and those above: whether the exact match of SQuAD holds."""
    hard = load("tests/envs/search_qa/hard_pairs.py").HARD_PAIRS
    pairs = [Pair(answers, prediction, bool(em), "SQuAD's rules, by hand") for prediction, answers, em, *_ in hard]
    for line in SEARCH_PAIRS.strip("\n").splitlines():
        cause, prediction, answer, right = line.split("|")
        pairs.append(Pair((answer,), prediction.replace("\\t", "\t"), right == "1", cause))
    return pairs


def published_search() -> Iterator[tuple[str, Callable[[Any, str], bool]]]:
    """Yields published exact matches."""
    if squad := optional("transformers.data.metrics.squad_metrics", "transformers"):
        yield "transformers", lambda answers, given: any(squad.compute_exact(answer, given) for answer in answers)
    if torchmetrics := optional("torchmetrics.functional.text", "torchmetrics"):

        def by_torchmetrics(answers: Any, given: str) -> bool:
            target = {"answers": {"answer_start": [0] * len(answers), "text": list(answers)}, "id": "1"}
            found = torchmetrics.squad({"prediction_text": given, "id": "1"}, target)
            return float(found["exact_match"]) == 100

        yield "torchmetrics", by_torchmetrics
    if skyrl := optional("skyrl_gym.envs.search.utils", "skyrl-gym"):
        yield "skyrl-gym", lambda answers, given: bool(skyrl.em_check(given, list(answers)))


def search(arguments: argparse.Namespace) -> Iterator[Score]:
    """Yields the scores of the search grader: exact match, and sub-match where it is used as a reward."""
    pairs = our_search_pairs()[:: 10 if arguments.quick else 1]
    yield score("our pairs, exact match", "ours", pairs, lambda answers, given: exact_match(given, answers) == 1.0)
    for name, decide in published_search():
        yield score("our pairs, exact match", name, pairs, decide)
        comparable = [pair for pair in pairs if all(map(normalize_answer, pair.reference))]
        theirs = [Pair(p.reference, p.answer, decide(p.reference, p.answer), f"as {name}") for p in comparable]
        yield score(f"verdicts of {name}", "ours", theirs, lambda answers, given: exact_match(given, answers) == 1.0)
    hedged = [pair for pair in pairs if not pair.right]
    yield score(
        "not exact, as sub-match rewards", "ours", hedged, lambda answers, given: sub_match(given, answers) == 1.0
    )


# ---------------------------------------------------------------------- repair


def repair(arguments: argparse.Namespace) -> Iterator[Score]:
    """Yields the scores of the repair grader: cheats are wrong, honest repairs right."""
    if arguments.quick:
        return
    cheats = load("tests/envs/code_repair/cheats.py")
    rows = [
        *(Pair((name, "files"), name, right=False, truth="a cheat in files") for name in cheats.FILES),
        *(Pair((name, "command"), name, right=False, truth="a cheat by command") for name in cheats.COMMANDS),
        *(Pair((name, "honest"), name, right=True, truth="an honest repair") for name in cheats.HONEST),
    ]

    def decide(reference: tuple[str, str], _answer: str) -> bool:
        name, kind = reference
        with closing(open_sandbox(spec_of(cheats.TASK))) as sandbox:
            sandbox.upload({"files": cheats.FILES, "honest": cheats.HONEST, "command": {name: {}}}[kind][name])
            if kind == "command":
                sandbox.exec(cheats.COMMANDS[name], timeout_s=20)
            submission = collect_submission(sandbox, cheats.TASK)
        return Grader(case_timeout_s=3.0).grade(cheats.TASK, submission).solved

    yield score("cheats and honest repairs", "ours", rows, decide)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Score]]] = {"math": math, "search": search, "repair": repair}


def report(scores: Iterable[Score], *, shown: int) -> list[Score]:
    """Prints the table as it grows, and then where our graders disagree, by cause."""
    print(HEADER)
    kept: list[Score] = []
    for found in scores:
        print(found.line(), flush=True)
        kept.append(found)
    for found in kept:
        if found.grader == "ours" and found.causes:
            print(f"\nours on {found.collection}, by cause:")
            for cause, count in found.causes.most_common():
                print(f"  {count:>4}  {cause}")
            for example in found.examples[:shown]:
                print(f"        {example}")
    ours = [found for found in kept if found.collection.startswith(("our table", "our pairs", "cheats"))]
    wrong = {name: [f for f in ours if f.grader == name] for name in dict.fromkeys(f.grader for f in ours)}
    print("\nerror rates on our own pairs: wrong rewarded, right refused")
    for name, parts in wrong.items():
        total = sum(part.pairs for part in parts)
        rewarded, refused = (sum(getattr(part, key) for part in parts) for key in ("wrong_rewarded", "right_refused"))
        print(f"  {name:<16} {Fraction(rewarded, total or 1) * 100.0:6.2f} % {refused / (total or 1):8.2%} of {total}")
    return kept


def main(argv: Sequence[str] | None = None) -> list[Score]:
    """Reads the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all"], help="which graders")
    parser.add_argument("--quick", action="store_true", help="a tenth of every collection, and no sandboxes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--examples", type=int, default=5, metavar="N", help="disagreements to print per collection")
    parser.add_argument("--sdist", action="store_true", help="download math-verify's source, run its tests' pairs too")
    parser.add_argument("--version", default="0.9.0", help="which version of it (%(default)s)")
    arguments = parser.parse_args(argv)
    parts = PARTS.values() if arguments.part == "all" else [PARTS[arguments.part]]
    scores = report((found for part in parts for found in part(arguments)), shown=arguments.examples)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(found) for found in scores], indent=1, ensure_ascii=False) + "\n")
    return scores


if __name__ == "__main__":
    main()
