"""Verdicts: right, wrong, or none."""

import pickle
import threading
from fractions import Fraction

import math_verify
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.envs.math_verifier import RequestError, Verifier, WorkerPool, plain_value, read, shared_verifier
from agentenv.errors import TaskError, VerifierError


@pytest.fixture(scope="module")
def verifier():
    with WorkerPool(cpu_limit_s=1.0) as pool:
        yield Verifier(pool)


plain_texts = st.from_regex(
    r"-?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,3}|[0-9]{1,20}|[0-9]{1,3}/0{0,2}[1-9][0-9]{0,2})", fullmatch=True
).filter(str.isascii)
spelled = st.one_of(plain_texts, plain_texts.map("${}$".format), plain_texts.map("\\boxed{{{}}}".format))


def published(reference, answer):
    """math-verify's own verdict, in this thread."""
    one, two = (
        math_verify.parse(text if "$" in text or "\\boxed" in text else f"${text}$") for text in (reference, answer)
    )
    return bool(math_verify.verify(one, two))


@settings(max_examples=150, deadline=None)
@given(spelled, spelled)
def test_math_verify_agrees_on_plain_numbers(reference, answer):
    """The shortcut for plain numbers, what is read and compared without it, and math-verify say the same."""
    values = plain_value(reference), plain_value(answer)
    assert None not in values
    equal = values[0] == values[1]
    reply = shared_verifier().pool.call({"op": "verify", "gold": read(reference), "answer": read(answer)})
    assert reply["right"] is published(reference, answer) is equal


@settings(max_examples=60, deadline=None)
@given(st.integers(-40, 40), st.integers(1, 40), st.integers(1, 5), st.sampled_from(["{}/{}", "\\frac{{{}}}{{{}}}"]))
def test_equal_fractions_are_right(above, below, factor, form):
    reference = str(Fraction(above, below))
    answer = form.format(above * factor, below * factor)
    assert shared_verifier().check(reference, answer)
    assert published(reference, answer)


def test_plain_numbers_need_no_process():
    pool = WorkerPool()
    verifier = Verifier(pool)
    verifier.check_reference("72")
    assert verifier.check("72", "072")
    assert not verifier.check("72", "1,072")
    assert not verifier.check("72", "")
    assert pool.process_id is None


@pytest.mark.parametrize("reference", ["", "   ", r"\frac{1}{", "{{{", r"\boxed{}", "###", "9" * 3 + "**" * 9, "((1,"])
def test_an_unparseable_reference_is_a_task_error(verifier, reference):
    with pytest.raises(TaskError, match="reference must be a number, a word or LaTeX"):
        verifier.check_reference(reference)
    with pytest.raises(TaskError):
        verifier.check(reference, "72x")


def test_a_reference_that_hangs_is_a_task_error():
    with WorkerPool(workers=1, cpu_limit_s=0.3) as pool, pytest.raises(TaskError, match="more processor time"):
        Verifier(pool).check_reference("{" * 3000)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        "?",
        "\x00",
        "\ud800",
        "x" * 5_000_000,
        "9" * 5_000_000,
        "7" + ",300" * 900,
        "0.\\overline{" + "3" * 1900,
        "\\" * 1500,
        "{" * 1500,
        "$" * 1999,
        "\\boxed{" * 200,
        "𝟟𝟚",
        "NaN",
        "\u202e27",
    ],
)
def test_an_unparseable_answer_is_wrong(verifier, answer):
    assert verifier.check("73.5", answer) is False


def test_no_processes_no_verdict():
    class Broken(WorkerPool):
        def call(self, request):
            msg = "the machine is on fire"
            raise VerifierError(msg)

    verifier = Verifier(Broken())
    for _ in range(2):  # and it is not remembered
        with pytest.raises(VerifierError, match="on fire"):
            verifier.check("x+1", "\\lfloor x \\rfloor")
        with pytest.raises(VerifierError, match="on fire"):
            verifier.check_reference("x+1")
    assert verifier.check("72", "72")


class Counting(WorkerPool):
    """A pool that counts, and answers as it is told."""

    def __init__(self, *replies):
        super().__init__()
        self.requests, self.replies = [], list(replies)

    def call(self, request):
        self.requests.append(request)
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_every_pair_is_asked_once():
    pool = Counting({"parsed": True, "right": True})
    verifier = Verifier(pool)
    assert all(verifier.check("x", "y") for _ in range(5))
    assert [request["op"] for request in pool.requests] == ["parse", "verify"]
    assert verifier.check("x", "z")
    assert len(pool.requests) == 3


def test_the_cache_is_bounded():
    pool = Counting({"parsed": True, "right": True})
    verifier = Verifier(pool, cache_size=10)
    for i in range(100):
        verifier.check("x", f"y{i}")
    before = len(pool.requests)
    verifier.check("x", "y99")
    assert len(pool.requests) == before
    verifier.check("x", "y0")
    assert len(pool.requests) > before


def test_an_answer_beyond_the_limits_is_wrong():
    verifier = Verifier(Counting({"parsed": True}, RequestError("more memory than allowed")))
    assert verifier.check("x", "y") is False


@pytest.mark.parametrize(
    ("reference", "answer", "value"),
    [
        ("11", "3 + 4 * 2", False),
        ("11", "3 + 4 \\cdot 2", False),
        ("11", "$3 + 4 * 2$", False),
        ("11", "\\boxed{10+1}", False),
        ("11", "3 + 8 = 11", False),
        ("8", "2^3", False),
        ("120", "5!", False),
        ("6", "\\sqrt{36}", False),
        ("(3, -2)", "(1+2, -2)", False),
        ("11", "11.0", True),
        ("11", "x = 11", True),
        ("11", "the answer is 11", True),
        ("-3/4", "-\\frac{3}{4}", True),
        ("-3/4", "-0.75", True),
        ("1/2", "50%", True),
        ("(3, -2)", "x=3, y=-2", True),
        ("(1/2, -3/4)", "(0.5, -\\frac34)", True),
    ],
)
def test_a_calculation_is_not_a_value(verifier, reference, answer, value):
    assert verifier.check(reference, answer) is True
    assert verifier.check(reference, answer, value_only=True) is value


def test_verdicts_are_the_same_in_a_thread(verifier):
    """math-verify itself raises off the main thread, and a scorer that catches it scores 0."""
    pairs = [("1/2", "0.5"), ("x+1", "1+x"), ("\\sqrt{2}", "2^{1/2}"), ("[0,1)", "[0,1]")]
    fresh, found = Verifier(verifier.pool), []
    thread = threading.Thread(target=lambda: found.extend(fresh.check(*pair) for pair in pairs))
    thread.start()
    thread.join()
    assert found == [True, True, True, False]


def test_a_verifier_travels_by_its_settings():
    copy = pickle.loads(pickle.dumps(Verifier(WorkerPool(workers=3, cpu_limit_s=2.0), cache_size=5)))
    assert (copy.pool.workers, copy.pool.cpu_limit_s, copy.pool.process_id) == (3, 2.0, None)
