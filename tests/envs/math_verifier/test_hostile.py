"""Answers written to hang, crash or fool the verifier."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from agentenv.envs.math_verifier import MathTask, MathVerifier, Verifier, WorkerPool

HANGS = [
    "{0}**9**9**9**9",
    r"\boxed{{9^{{9^{{9^{{{0}}}}}}}}}",
    r"{0}00000000!",
    r"\sum_{{k=1}}^{{10^9}} \frac{{1}}{{k^{0}}}",
    r"\boxed{{" + "{{" * 900 + "{0}" + "}}" * 900 + "}}",
    "(" * 900 + "{0}",
    r"\int_0^{0} e^{{e^{{x^x}}}} dx",
    r"\boxed{{" + r"\sqrt{{{0}+" * 60 + "2" + "}}" * 60 + "}}",
    "{0}!!!!!!",
    r"\left(" * 300 + "{0}",
]
NONSENSE = [
    "__import__('os').system('touch {0}')",
    "eval('{0}' * 10**9)",
    "<script>{0}</script>",
    r"\frac{{{0}",
    "{0}" + r"\\" * 700,
    "{0}" + "?" * 1500,
    "x" * 1999 + "{0}",
    "$" * 900 + "{0}",
    "{0}^" * 600 + "2",
    "{0}" + r"\sqrt" * 300,
    "{0}\x00\ud800\u202e",
    "{0}" * 5_000,
]


@pytest.fixture(scope="module")
def verifier():
    with WorkerPool(workers=2, cpu_limit_s=0.3) as pool:
        yield Verifier(pool)


@pytest.mark.parametrize("form", HANGS + NONSENSE)
def test_a_hostile_answer_is_wrong_and_the_next_honest_one_right(verifier, form):
    assert verifier.check("7", form.format(13)) is False
    assert verifier.check("\\frac{1}{7}", "2/14 ") is True


@pytest.mark.slow
def test_a_thousand_hostile_and_honest_answers_in_a_row(verifier):
    """Every honest verdict is right, from four threads, with some forty workers killed on the way."""
    answers = []
    for i in range(500):
        answers.append(
            (f"\\frac{{{i}}}{{7}}", f"\\frac{{{2 * i}}}{{14}}", True) if i % 2 else (f"x+{i}", f"{i + 1}+x", False)
        )
        form = HANGS[i // 12 % len(HANGS)] if i % 12 == 0 else NONSENSE[i % len(NONSENSE)]
        answers.append(("7", form.format(i + 11), False))
    references, given, expected = zip(*answers, strict=True)
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(verifier.check, references, given))
    wrong = [answers[i] for i in range(1000) if verdicts[i] is not expected[i]]
    assert wrong == []


def test_code_in_an_answer_is_not_run(verifier, tmp_path):
    mark = tmp_path / "mark"
    for code in (
        f"__import__('os').system('touch {mark}')",
        f"$__import__('os').system('touch {mark}')$",
        f"\\boxed{{open('{mark}', 'w')}}",
        f"open('{mark}', 'w').write('1')",
        f"1; import pathlib; pathlib.Path('{mark}').touch()",
    ):
        assert verifier.check("7", code) is False
        env = MathVerifier(tasks=[MathTask(question="Q", reference="7")], verifier=verifier)
        env.reset(seed=0)
        env.step({"tool_calls": [{"function": {"name": "calculate", "arguments": {"expression": code}}}]})
    assert not mark.exists()


@pytest.mark.parametrize(
    "answer",
    ["Compute 3 + 4 * 2.", "3 + 4 * 2", r"\boxed{3 + 4 \cdot 2}", "11 or 12", "1 to 100", "11, 12", "[0, 100]"],
)
def test_what_would_fool_a_lenient_scorer(verifier, answer):
    """The question itself, and answers that hedge."""
    env = MathVerifier(
        tasks=[MathTask(question="Compute 3 + 4 * 2.", reference="11", value_only=True)], verifier=verifier
    )
    env.reset(seed=0)
    assert env.step({"tool_calls": [{"function": {"name": "submit", "arguments": {"answer": answer}}}]})[1] == 0.0
