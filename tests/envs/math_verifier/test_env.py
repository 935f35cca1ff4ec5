"""The environment: tools, attempts, signatures, branching."""

import pickle
import time

import pytest
from envs.math_verifier.plain_sandbox import plain_sandbox
from hypothesis import given, settings
from hypothesis import strategies as st

import agentenv as ae
from agentenv.envs.math_verifier import GENERATORS, MathTask, MathVerifier, Verifier, WorkerPool
from agentenv.errors import EpisodeError, SandboxError, TaskError, VerifierError
from agentenv.testing import check_env
from agentenv.types import message_text

UNSAFE = pytest.mark.filterwarnings("ignore:the subprocess sandbox isolates nothing")
SIX = MathTask(question="Compute 3 + 4 * 2 - 5.", reference="6", kind="arithmetic", value_only=True)


def call(name, **arguments):
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def begin(task=SIX, **options):
    env = MathVerifier(**options)
    env.reset(options={"task": task})
    return env


def said(env, name, **arguments):
    return message_text(env.step(call(name, **arguments))[0][0])


def test_an_episode_by_hand():
    env = begin(operations_per_call=1)
    assert env.step(call("calculate", expression="4 * 2"))[:4] == (
        ({"role": "tool", "content": "8", "name": "calculate"},),
        0.0,
        False,
        False,
    )
    assert said(env, "calculate", expression="3+8") == "11"
    assert said(env, "calculate", expression="11 - 5") == "6"
    observation, reward, terminated, truncated, info = env.step(call("submit", answer="6"))
    assert (message_text(observation[0]), reward, terminated, truncated) == ("correct", 1.0, True, False)
    assert info["rewards"] == {"outcome": 1.0}
    with pytest.raises(EpisodeError):
        env.step(call("submit", answer="6"))


@pytest.mark.parametrize("answer", ["6", 6, 6.0, "6.0", "x = 6", r"\boxed{6}", "the answer is 6"])
def test_right_answers(answer):
    assert begin().step(call("submit", answer=answer))[1] == 1.0


@pytest.mark.parametrize("answer", ["7", -6, 6.5, "", "3 + 4 * 2 - 5", r"$3 + 4 \cdot 2 - 5$", "six", "5 + 1"])
def test_wrong_answers(answer):
    observation, reward, terminated, *_ = begin().step(call("submit", answer=answer))
    assert (message_text(observation[0]), reward, terminated) == ("wrong", 0.0, True)


@pytest.mark.parametrize(
    ("text", "reward"), [(r"So \boxed{6}.", 1.0), (r"\boxed{5}, no: \boxed{6}", 1.0), (r"\boxed{7}", 0.0)]
)
def test_a_box_in_the_text_is_an_answer(text, reward):
    _, given, terminated, *_ = begin().step(text)
    assert (given, terminated) == (reward, True)


def test_other_text_is_a_mistake_the_agent_can_read():
    observation, reward, terminated, _, info = begin().step("I think it is 6")
    assert message_text(observation[0]) == "call a tool, or write the answer in \\boxed{}"
    assert (reward, terminated, len(info["mistakes"])) == (0.0, False, 1)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"expression": "3 + 4 * 2"}, "only 1 operation per call"),
        ({"expression": "1/0"}, "division by zero"),
        ({"expression": "("}, "the expression ends too early"),
        ({"expression": "9^9^9"}, "only 1 operation per call"),
        ({"expression": ["5"]}, "wrong arguments"),
        ({}, "wrong arguments"),
    ],
)
def test_mistakes_of_the_calculator(arguments, answer):
    env = begin(operations_per_call=1)
    observation, reward, terminated, _, info = env.step(call("calculate", **arguments))
    assert message_text(observation[0]).startswith(answer)
    assert (reward, terminated, len(info["mistakes"])) == (0.0, False, 1)
    assert env.state.values == ()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1/3 + 1/6", "1/2"),
        ("sqrt(8)", "2*sqrt(2)"),
        ("sqrt(16) + 2", "6"),
        ("expand((x + 1)^3)", "x^3 + 3*x^2 + 3*x + 1"),
        ("factor(x^2 - x - 6)", "(x - 3)*(x + 2)"),
        ("solve(x^2 - x - 6, x)", "{-2, 3}"),
        ("diff(x^3, x)", "3*x^2"),
        ("simplify(sin(x)^2 + cos(x)^2)", "1"),
        ("2^(1/2) * 2^(1/2)", "2"),
        ("sin(pi/6)", "1/2"),
        ("i^2", "-1"),
        ("max(1, sqrt(2))", "sqrt(2)"),
        ("abs(x - x - 3) % 2", "1"),
    ],
)
def test_the_calculator_is_exact_and_symbolic(expression, value):
    env = begin()
    assert said(env, "calculate", expression=expression) == value
    assert env.state.values == (value,)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("1/(x - x)", "division by zero"),
        ("sqrt(1, 2, 3, 4)", "cannot compute this"),
        ("expand((x + y + z)^20)", "result too long"),
        ("x^(9^9^9)", "number too large"),
        ("expand((x + y + z)^300)", "cannot compute this: more"),
        ("system(1)", "unknown function 'system'; there are abs"),
        ("x.__class__", "cannot read '.'"),
    ],
)
def test_what_the_calculator_cannot_do_is_an_answer_not_an_exception(expression, answer):
    with WorkerPool(workers=1, cpu_limit_s=1.0) as pool:
        env = begin(verifier=Verifier(pool))
        observation, _, terminated, _, info = env.step(call("calculate", expression=expression))
        assert answer in message_text(observation[0])
        assert (len(info["mistakes"]), terminated) == (1, False)
        assert said(env, "calculate", expression="1 + 1") == "2"


def test_attempts_and_feedback():
    env = begin(attempts=3, feedback="direction")
    assert said(env, "submit", answer="4") == "too small, 2 attempts left"
    assert message_text(env.step(r"\boxed{10}")[0][0]) == "too large, 1 attempt left"
    _, reward, terminated, *_ = env.step(call("submit", answer="six"))
    assert (reward, terminated) == (0.0, True)
    env = begin(attempts=2)
    assert said(env, "submit", answer="4") == "wrong, 1 attempt left"
    assert env.step(call("submit", answer="6"))[1:3] == (1.0, True)


def test_direction_is_told_of_plain_numbers_only():
    env = begin(MathTask(question="Q", reference="x+1"), attempts=2, feedback="direction")
    assert said(env, "submit", answer="x") == "wrong, 1 attempt left"


def test_countdown_takes_any_expression_that_works():
    task = MathTask(question="Make 12.", reference="12", numbers=(2, 4, 10))
    for answer, reward in (("2 * (10 - 4)", 1.0), (r"\boxed{10 + 4 - 2}", 1.0), ("12", 0.0), ("10 + 2", 0.0)):
        assert begin(task).step(call("submit", answer=answer))[1] == reward


def test_the_step_limit_truncates():
    env = begin(max_steps=2)
    assert env.step(call("calculate", expression="1 + 1"))[2:4] == (False, False)
    assert env.step(call("calculate", expression="1 + 2"))[2:4] == (False, True)


def test_instructions_come_first():
    env = MathVerifier(instructions="Use the tools.")
    observation, _ = env.reset(seed=0)
    assert [message["role"] for message in observation] == ["system", "user"]


def test_the_reference_is_hidden():
    env = MathVerifier(tasks=[{"question": "Q", "reference": "123454321"}], attempts=2, feedback="direction")
    seen = repr(env.reset(seed=0)) + repr(env.tools)
    for action in (
        call("submit", answer="1"),
        call("calculate", expression="reference"),
        "show me",
        call("submit", answer="2"),
    ):
        seen += repr(env.step(action))
    assert "123454321" not in seen


def test_signatures_forget_how_values_were_found():
    one, two = begin(), begin()
    for expression in ("4 * 2", "3 + 8", "4*2"):
        one.step(call("calculate", expression=expression))
    for expression in ("12 - 1", "2 + 6"):
        two.step(call("calculate", expression=expression))
    assert one.state_signature() == two.state_signature()
    two.step(call("calculate", expression="1/2 + 1"))
    assert one.state_signature() != two.state_signature()
    one.step(call("calculate", expression="3/2"))
    assert one.state_signature() == two.state_signature()
    one.step(call("calculate", expression="1/0"))  # a mistake changes nothing
    assert one.state_signature() == two.state_signature()


def test_signatures_tell_submissions_apart():
    signatures = set()
    for answers in ((), ("1",), ("2",), ("1", "2"), ("2", "1")):
        env = begin(attempts=3)
        for answer in answers:
            env.step(call("submit", answer=answer))
        signatures.add(env.state_signature())
    assert len(signatures) == 5


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        (call("calculate", expression="4*2"), call("calculate", expression=" 4  * 2 "), True),
        (call("calculate", expression="(4*2)"), call("calculate", expression="4×2"), True),
        (call("calculate", expression="4*2"), call("calculate", expression="2*4"), False),
        (call("submit", answer="1,000"), call("submit", answer=1000), True),
        (call("submit", answer="2/4"), "so \\boxed{1/2}", True),
        (call("submit", answer="3"), call("submit", answer="4"), False),
        (call("calculate", expression="3"), call("submit", answer="3"), False),
        (call("calculate", expression="3 +"), call("calculate", expression="3 +"), True),
        (call("calculate", wrong="3"), call("calculate", expression="3"), False),
        ("text", " text ", True),
    ],
)
def test_action_signatures(one, two, equal):
    env = MathVerifier()
    assert (env.action_signature(ae.Action.parse(one)) == env.action_signature(ae.Action.parse(two))) is equal


def test_a_megabyte_of_answer_is_wrong_and_costs_no_memory():
    env = begin(attempts=2)
    env.step(call("submit", answer="6" * 1_000_000))
    assert len(pickle.dumps(env.snapshot())) < 20_000
    assert message_text(env.step(r"\boxed{" * 100_000)[0][0]).startswith("call a tool")


class NoVerdict(WorkerPool):
    def call(self, request):
        msg = "gone"
        raise VerifierError(msg)


def test_a_verifier_that_fails_gives_no_reward():
    env = MathVerifier(tasks=[MathTask(question="Q", reference="6")], verifier=Verifier(NoVerdict()))
    env.reset(seed=0)
    with pytest.raises(VerifierError):
        env.step(call("submit", answer="sqrt(36)"))
    with pytest.raises(EpisodeError, match="failed"):
        env.step(call("submit", answer="6"))
    env = begin(verifier=Verifier(NoVerdict()))
    with pytest.raises(VerifierError):
        env.step(call("calculate", expression="sqrt(2)"))


def test_an_unparseable_reference_is_found_at_reset():
    with pytest.raises(TaskError, match="reference must be"):
        begin(MathTask(question="Q", reference=r"\frac{1}{"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kind": "arithmetics"}, "kind must be one or several of 'arithmetic'"),
        ({"kind": []}, "kind must be"),
        ({"difficulty": 0}, r"difficulty of 'arithmetic' must be in \[1, 8\], got 0"),
        ({"difficulty": (1, 9)}, "got 9"),
        ({"difficulty": (3, 1)}, r"\(lowest, highest\), got \(3, 1\)"),
        ({"kind": ["arithmetic", "equation"], "difficulty": 5}, "'equation' must be"),
        ({"operations_per_call": 0}, "operations_per_call must be at least 1, got 0"),
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"attempts": "x"}, "attempts must be an integer, got 'x'"),
        ({"operations_per_call": 1.5}, "operations_per_call must be an integer, got 1.5"),
        ({"feedback": "hint"}, "feedback must be 'verdict' or 'direction', got 'hint'"),
        ({"tasks": []}, "at least one task"),
    ],
)
def test_wrong_options(options, reason):
    with pytest.raises(ValueError, match=reason):
        MathVerifier(**options)


@pytest.mark.parametrize("kind", GENERATORS)
def test_every_generator_in_the_environment(kind):
    env = MathVerifier(kind=kind, difficulty=(1, GENERATORS[kind].highest))
    levels = set()
    for seed in range(30):
        env.reset(seed=seed)
        levels.add(env.task.difficulty)
        if seed < 4 and kind != "countdown":
            assert env.step(call("submit", answer=env.task.reference))[1] == 1.0
    assert levels == set(range(1, GENERATORS[kind].highest + 1))


def test_kinds_are_mixed():
    env = MathVerifier(kind=["equation", "modular"], difficulty=1)
    assert {(env.reset(seed=seed), env.task.kind)[1] for seed in range(20)} == {"equation", "modular"}


def test_there_is_no_python_without_a_sandbox():
    env = begin()
    assert [tool["function"]["name"] for tool in env.tools] == ["calculate", "submit"]
    assert "there is no tool 'python'" in said(env, "python", code="print(1)")


@pytest.fixture
def python_env():
    env = begin(sandbox=plain_sandbox, python_timeout_s=2.0)
    yield env
    env.close()


def test_python_runs_in_the_sandbox(python_env):
    assert [tool["function"]["name"] for tool in python_env.tools] == ["calculate", "python", "submit"]
    assert said(python_env, "python", code="print(sum(range(4)))") == "6"
    assert python_env.state.values == ("6",)
    assert said(python_env, "python", code="x = 1") == ""
    assert said(python_env, "python", code="print('x' * 10**6)").count("x") < 2_100


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("1/0", "ZeroDivisionError"),
        ("print(", "SyntaxError"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import time; print('before', flush=True); time.sleep(60)", "timed out after 2 s"),
        ("#" * 20_001, "program too long"),
    ],
)
def test_mistakes_in_python(python_env, code, answer):
    observation, _, terminated, _, info = python_env.step(call("python", code=code))
    assert answer in message_text(observation[0])
    assert (len(info["mistakes"]), terminated, python_env.state.values) == (1, False, ())


@UNSAFE
def test_files_of_python_are_part_of_the_state(python_env):
    before, signature = python_env.snapshot(), python_env.state_signature()
    said(python_env, "python", code="open('note', 'w').write('7')")
    assert python_env.state_signature() != signature
    (child,) = python_env.fork(1)
    assert said(child, "python", code="print(open('note').read())") == "7"
    child.close()
    python_env.restore(before)
    assert python_env.state_signature() == signature
    assert "FileNotFoundError" in said(python_env, "python", code="open('note')")


expressions = st.sampled_from(["4 * 2", "3 + 8", "11 - 5", "3 + 4 * 2", "1/0", "sqrt(8)", "x"])
actions = st.one_of(
    expressions.map(lambda text: call("calculate", expression=text)),
    st.sampled_from(["6", "7", "x", "1/2"]).map(lambda text: call("submit", answer=text)),
    st.sampled_from(["hm", r"\boxed{6}", "<tool_call>{", ""]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(actions, max_size=5), st.lists(actions, min_size=1, max_size=4))
def test_branches_repeat_the_original(before, after):
    env = begin(attempts=2, feedback="direction")

    def play(branch, script):
        trace = []
        for action in script:
            try:
                trace.append((branch.step(action)[:4], branch.state_signature()))
            except EpisodeError:
                break
        return trace

    play(env, before)
    snapshot = pickle.loads(pickle.dumps(env.snapshot()))
    children = env.fork(2)
    expected = play(env, after)
    assert all(play(child, after) == expected for child in children)
    env.restore(snapshot)
    assert play(env, after) == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"operations_per_call": 1, "difficulty": 4},
        {"kind": ["equation", "countdown", "polynomial"], "difficulty": (1, 3), "attempts": 3, "feedback": "direction"},
        {"tasks": [{"question": "Q", "answer": "#### 1,000"}], "instructions": "Use the tools."},
    ],
    ids=["default", "one operation", "attempts", "rows"],
)
def test_the_contract(options):
    check_env(
        MathVerifier(**options),
        actions=[call("calculate", expression="4 * 2"), "hm", call("calculate", expression="3 + 8")],
    )


@pytest.mark.slow
@UNSAFE
def test_the_contract_with_a_sandbox():
    check_env(
        MathVerifier(sandbox=plain_sandbox),
        actions=[
            call("python", code="open('n', 'a').write('1'); print(len(open('n').read()))"),
            call("calculate", expression="1+1"),
        ],
    )


def test_the_registered_environment():
    check_env("agentenv/MathVerifier-v0")


def test_steps_are_fast():
    """Well under a millisecond each, on the path that training takes; the bound is loose for a busy machine."""
    env = MathVerifier(operations_per_call=1)
    env.reset(seed=0)
    start, count = time.process_time(), 300
    for _ in range(count):
        env.reset()
        env.step(call("calculate", expression="4 * 2"))
        env.step(call("submit", answer=env.task.reference))
    assert (time.process_time() - start) / count < 3e-3


KILL = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"


@UNSAFE
def test_a_program_that_loses_the_sandbox_is_taken_back_and_the_second_ends_the_episode(python_env):
    said(python_env, "python", code="open('kept', 'w').write('7')")
    observation, reward, terminated, _, info = python_env.step(call("python", code=f"open('new', 'w')\n{KILL}"))
    assert "the sandbox was lost in this step" in message_text(observation[0])
    assert (reward, terminated, len(info["breakages"])) == (0.0, False, 1)
    assert said(python_env, "python", code="import os; print(open('kept').read(), os.path.exists('new'))") == "7 False"
    _, reward, terminated, _, info = python_env.step(call("python", code=KILL))
    assert (reward, terminated, info["rewards"]) == (0.0, True, {"outcome": 0.0})


@UNSAFE
def test_a_sandbox_that_cannot_be_opened_again_is_nobodys_fault():
    opened = []

    def once():
        if opened:
            msg = "no room"
            raise SandboxError(msg)
        opened.append(plain_sandbox())
        return opened[0]

    env = begin(sandbox=once)
    with pytest.raises(SandboxError, match="no room"):
        env.step(call("python", code=KILL))
    env.close()


def test_an_answer_that_breaks_the_worker_is_wrong_and_listed():
    with WorkerPool(workers=1, cpu_limit_s=0.3) as pool:
        env = MathVerifier(tasks=[{"question": "Q", "answer": "7"}], verifier=Verifier(pool))
        env.reset(seed=0)
        _, reward, terminated, _, info = env.step(call("submit", answer="9^9^9^9"))
    assert (reward, terminated) == (0.0, True)
    assert info["breakages"] == ["the answer was not compared: more processor time than allowed"]


def test_an_expression_that_breaks_the_worker_is_listed_while_others_are_computed():
    with WorkerPool(workers=1, cpu_limit_s=60.0, wall_limit_s=0.3) as pool:
        env = begin(verifier=Verifier(pool))
        observation, _, terminated, _, info = env.step(call("calculate", expression="expand((x + y + z)^400)"))
        assert "breaks the worker (SIGALRM), and another request does not" in message_text(observation[0])
        assert (terminated, len(info["breakages"]), len(info["mistakes"])) == (False, 1, 1)
        assert said(env, "calculate", expression="sqrt(8)") == "2*sqrt(2)"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_number_beyond_what_python_prints_is_an_answer_too_long(sign):
    env = begin()
    answer = sign * 10**5000
    observation, reward, terminated, *_ = env.step(call("submit", answer=answer))
    assert (message_text(observation[0]), reward, terminated) == ("wrong", 0.0, True)
    env.snapshot()
    one, two = (ae.Action.parse(call("submit", answer=each)) for each in (answer, answer + 1))
    assert env.action_signature(one) != env.action_signature(two)
