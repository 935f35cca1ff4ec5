"""Whatever `calculate` answers can be submitted, and is right for the same value in LaTeX."""

import pytest
import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentenv.envs.math_verifier import MathTask, MathVerifier, shared_verifier
from agentenv.envs.math_verifier.exact import fold
from agentenv.envs.math_verifier.expressions import parse_expression, to_lists
from agentenv.envs.math_verifier.symbolic import compute
from agentenv.types import message_text

ATOMS = ["x", "y", "2", "3", "1/2", "-4", "pi", "e", "i", "0.5", "10"]
FUNCTIONS = ["sqrt", "sin", "cos", "exp", "log", "abs", "floor", "expand", "factor", "simplify"]
expressions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: "({} {} {})".format(*parts)),
        st.tuples(inner, st.sampled_from(["2", "3", "(1/2)", "(-1)"])).map(lambda parts: "({})^{}".format(*parts)),
        st.tuples(st.sampled_from(FUNCTIONS), inner).map(lambda parts: "{}({})".format(*parts)),
    ),
    max_leaves=5,
)
polynomials = st.lists(st.integers(-5, 5), min_size=2, max_size=4).map(
    lambda factors: "+".join(f"({c})*x^{power}" for power, c in enumerate(factors))
)
equations = st.one_of(
    polynomials, st.sampled_from(["sin(x)-1/2", "exp(x)-2", "abs(x)-3", "x^2-y", "x*y-1", "2^x-8", "x^4+1", "log(x)-1"])
)
requests = st.one_of(
    expressions,
    equations.map("solve({},x)".format),
    expressions.map("diff({},x)".format),
    st.tuples(expressions, expressions).map(lambda pair: "max({},{})".format(*pair)),
)


def answer_of(request):
    """What the calculator says; `None` where it says why it cannot."""
    env = MathVerifier(tasks=[MathTask(question="Q", reference="1")])
    env.reset(seed=0)
    call = {"function": {"name": "calculate", "arguments": {"expression": request}}}
    observation, _, _, _, info = env.step({"tool_calls": [call]})
    return None if info["mistakes"] else message_text(observation[0])


def latex_of(request):
    """The same value in LaTeX, as sympy writes it; of solutions, the set."""
    value = compute(to_lists(fold(parse_expression(request))))
    return sympy.latex(sympy.FiniteSet(*value) if isinstance(value, list) else value, ln_notation=True)


@settings(max_examples=150, deadline=None)
@example("max(x, (x + i))")
@example("min(2, i)")
@given(requests)
def test_whatever_the_calculator_answers_is_right_for_the_same_value(request):
    answer = answer_of(request)
    if answer is None:
        return
    verifier = shared_verifier()
    assert verifier.check(answer, answer), answer
    assert verifier.check(latex_of(request), answer), (latex_of(request), answer)


@pytest.mark.parametrize(
    ("request_", "answer", "reference", "other"),
    [
        ("e^2", "e^(2)", "e^2", "e^3"),
        ("exp(x/2)", "e^(x/2)", r"e^{\frac{x}{2}}", r"e^{\frac{x}{3}}"),
        ("solve(x^2-x-6, x)", "{-2, 3}", r"\{-2, 3\}", "[-2, 3]"),
        ("solve(x^2+4, x)", "{-2*i, 2*i}", r"\pm 2i", "2i"),
        ("solve(x+1-x, x)", "{}", r"\emptyset", "0"),
        ("sqrt(-4)", "2*i", "2i", "-2i"),
        ("log(2)", "ln(2)", r"\ln 2", r"\log_{10} 2"),
        ("abs(x)", "abs(x)", "|x|", "x"),
        ("floor(x)", "floor(x)", r"\lfloor x \rfloor", r"\lceil x \rceil"),
    ],
)
def test_by_hand(request_, answer, reference, other):
    assert answer_of(request_) == answer
    assert shared_verifier().check(reference, answer)
    assert not shared_verifier().check(other, answer)


@pytest.mark.parametrize("request_", ["solve(x^5-x-1, x)", "diff(ceil(x), x)"])
def test_what_has_no_closed_form_is_refused(request_):
    assert answer_of(request_) is None
