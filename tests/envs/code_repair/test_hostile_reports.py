"""Whatever a grading process prints, the parsers neither crash nor find a verdict in it that nobody gave."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentenv.envs.code_repair import Case, matches
from agentenv.envs.code_repair.outcomes import read_outcome
from agentenv.envs.code_repair.suite_running import read_lines
from agentenv.envs.code_repair.wire import Graph, encode
from agentenv.protocols import ExecResult

NONCE, KEY = "0123456789abcdef", bytes(range(32))
CASES = (
    Case(call="f()", expected="1"),
    Case(call="f()", expected="[1, {2: 3.5}, {4}]", tolerance=0.1),
    Case(call="f()", raises="ValueError"),
    Case(call="f()", raises="shop.Empty"),
)
TAGS = [*"ifcbylstzdkmnruFhpo", "returned", "raised", "changed", "with", "died", "nonce", "value", "broken", "nothing"]
NAMES = ["ValueError", "Exception", "BaseException", "KeyError", "LookupError", "shop.Empty", "object", "", "int"]

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([*NAMES, NONCE])
)
hostile = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(TAGS) | st.text(max_size=3), inner, max_size=4)
        | st.builds(lambda tag, content: {tag: content}, st.sampled_from(TAGS), inner)
    ),
    max_leaves=12,
)
results = st.builds(
    ExecResult,
    exit_code=st.sampled_from([0, 0, 0, 1, 137, -9]),
    stdout=st.binary(max_size=80).map(lambda data: data.decode(errors="replace")) | st.text(max_size=80),
    timed_out=st.booleans(),
    oom=st.booleans(),
    truncated=st.booleans(),
)


def lines(record):
    """Returns a record as a guest would print it."""
    return ExecResult(0, json.dumps(record) + "\n")


@given(results)
def test_bytes_are_no_outcome(result):
    for of_program in (False, True):
        outcome = read_outcome(result, NONCE, of_program=of_program)
        assert outcome.kind in {"timed out", "died"}
        assert not any(case.accepts(outcome) for case in CASES)
        assert outcome.reason


@given(st.dictionaries(st.sampled_from(TAGS), hostile, max_size=4), st.booleans())
@example({"returned": 1, "raised": ["ValueError", "Exception", "BaseException"]}, False)
@example({"raised": NAMES}, False)
@example({"returned": {"l": [{}] * 3}}, False)
def test_a_record_has_one_outcome_or_none(record, of_program):
    outcome = read_outcome(lines({**record, "nonce": NONCE}), NONCE, of_program=of_program)
    accepted = [case for case in CASES if case.accepts(outcome)]
    assert len({bool(case.raises) for case in accepted}) <= 1  # never both what it returned and what it raised
    assert outcome.reason is not None
    if outcome.kind == "raised":
        assert "returned" not in record
        assert outcome.names[-1] == "BaseException"
    if outcome.kind == "returned":
        assert "raised" not in record
        assert not matches(encode(object()), outcome.value)
    without = {key: value for key, value in record.items() if key != "nonce"}
    assert read_outcome(lines(without), NONCE).kind == "died"


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3), st.sampled_from(["", "raised", "twice"]))
def test_a_genuine_line_that_was_bent_is_the_same_or_none(place, junk, how):
    genuine = json.dumps({"nonce": NONCE, "returned": {"l": [1, {"f": (2.5).hex()}]}})
    text = genuine[:place] + junk.decode(errors="replace") + genuine[place:]
    text = text.replace("}}", '}, "raised": ["ValueError", "Exception", "BaseException"]}') if how == "raised" else text
    text = f"{text}\n" * 2 if how == "twice" else f"{text}\n"
    outcome = read_outcome(ExecResult(0, text), NONCE)
    assert not CASES[2].accepts(outcome)
    if how:
        assert outcome.kind == "died"


@given(hostile)
@example({"l": [{"r": 0}]})
@example({"i": "0x" + "f" * 5000})
@example({"f": "0x1p99999"})
@example({"k": ["fractions.Fraction", ["1e9999999999"]]})
@example({"k": ["fractions.Fraction", [{"k": ["decimal.Decimal", ["1e9999999999"]]}]]})
@example({"k": ["fractions.Fraction", [{"f": "0x1p1023"}, 1]]})
def test_values_of_a_submission_are_plain_or_refused(data):
    try:
        value = Graph(fetch=lambda what, number: (what, number)).decode(data)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, ImportError, RecursionError):
        return
    allowed = (bool, int, str, float, complex, bytes, bytearray, list, tuple, set, frozenset, dict, range, slice)
    module = type(value).__module__
    assert (
        value is None
        or isinstance(value, allowed)
        or module in {"collections", "decimal", "fractions", "datetime", "uuid"}
        or (callable(value) and getattr(value, "__module__", "") == "builtins")
    )


@given(hostile, hostile)
def test_comparing_what_a_submission_sends_is_no_crash(left, right):
    for value in (left, right):
        assert matches(encode([1, {2: 3.5}, {4}]), value, 0.1) in {True, False}


@pytest.mark.parametrize("tolerance", [1e-6, 0.5, 1.0])
def test_what_was_answered_does_not_say_how_far_it_may_be_off(tolerance):
    for found in (
        1e300,
        -1e300,
        float("inf"),
        float("-inf"),
        float("nan"),
        10 + 10.1 * tolerance,
        10 - 10.1 * tolerance,
    ):
        assert not matches(encode(10.0), encode(found), tolerance), found
    assert matches(encode(10.0), encode(10 + 9.9 * tolerance), tolerance)
    assert matches(encode(0.0), encode(0.9 * tolerance), tolerance)


@given(results)
def test_bytes_are_no_report(result):
    report = read_lines(result, KEY)
    assert report.problem
    assert not report.outcomes


words = st.sampled_from(["begun", "collected", "passed", "failed", "finished", "ended", "error", "x"])


@given(st.lists(st.tuples(words, st.text(max_size=4)), max_size=8), st.sampled_from([0, 1, 70]))
def test_lines_with_a_wrong_seal_are_no_report(told, exit_code):
    """As one would write them that has not got the key."""
    text = "".join(f"{'0' * 32} {n} {word} {name.encode().hex()}\n" for n, (word, name) in enumerate(told))
    report = read_lines(ExecResult(exit_code, text), KEY)
    assert report.problem
    assert not report.outcomes


def sealed(told):
    import hashlib

    out = []
    for number, (word, name) in enumerate(told):
        text = f"{number} {word} {name.encode().hex()}"
        out.append(f"{hashlib.blake2b(text.encode(), key=KEY, digest_size=16).hexdigest()} {text}\n")
    return out


FRAME = [("begun", ""), ("collected", "2"), ("passed", "a"), ("failed", "b"), ("finished", "1"), ("ended", "1")]


def test_the_lines_of_a_guest_are_a_report():
    report = read_lines(ExecResult(1, "".join(sealed(FRAME))), KEY)
    assert dict(report.outcomes) == {"a": "passed", "b": "failed"}


@given(st.data())
def test_a_report_that_was_bent_is_none(data):
    """Even by who can seal: lines left out, doubled, moved, with bytes more or less."""
    out = sealed(FRAME)
    match data.draw(st.integers(0, 3)):
        case 0:
            out.pop(data.draw(st.integers(0, len(out) - 1)))
        case 1:
            out.insert(data.draw(st.integers(0, len(out))), out[data.draw(st.integers(0, len(out) - 1))])
        case 2:
            first = data.draw(st.integers(0, len(out) - 2))
            out[first], out[first + 1] = out[first + 1], out[first]
        case _:
            text = "".join(out)
            place = data.draw(st.integers(0, len(text) - 1))
            junk = data.draw(st.text("0f \n\x00\u2028e", min_size=1, max_size=2))
            out = [text[:place] + junk + text[place:]]
    report = read_lines(ExecResult(1, "".join(out)), KEY)
    assert report.problem, out
    assert not report.outcomes
