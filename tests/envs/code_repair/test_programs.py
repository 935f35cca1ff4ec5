"""What test programs and submissions tell each other out of process: values exactly, changes, iterators, functions."""

import collections
import datetime as dt
import json
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.code_repair import Grader, RepairTask, Submission, TestProgram
from agentenv.envs.code_repair.guest import run_test
from agentenv.envs.code_repair.submissions import solution_of
from agentenv.envs.code_repair.wire import Graph, UncarriedError
from agentenv.errors import TaskError


def make(reference, program, wrong):
    return RepairTask(
        instruction="x",
        files={"m.py": wrong},
        setup="from m import f",
        program=TestProgram(program=program, function="f", reference=reference),
        solution={"m.py": reference},
    )


PROGRAMS = {
    "order of an argument": (
        "def f(d):\n    return list(d)\n",
        "assert f({'b': 1, 'a': 2}) == ['b', 'a']\nassert f({1: 2}) == [1]\n",
        "def f(d):\n    return sorted(d)\n",
    ),
    "order of an answer": (
        "def f(d):\n    return {k: 1 for k in d}\n",
        "assert list(f(['b', 'a'])) == ['b', 'a']\n",
        "def f(d):\n    return {k: 1 for k in sorted(d)}\n",
    ),
    "sorted in place": (
        "def f(x):\n    x.sort()\n",
        "x = [3, 1]\nassert f(x) is None\nassert x == [1, 3]\n",
        "def f(x):\n    return None\n",
    ),
    "one object twice, in itself": (
        "def f(x):\n    x.append(x)\n    return x\n",
        "x = [1]\nassert f(x) is x\nassert x[1] is x\n",
        "def f(x):\n    return [*x, x]\n",
    ),
    "the inside of an argument": (
        "def f(d):\n    d['q'][0].add(3)\n    return len(d)\n",
        "s = {1}\nd = {'q': [s]}\nassert f(d) == 1\nassert s == {1, 3} and d['q'][0] is s\n",
        "def f(d):\n    return 1\n",
    ),
    "a generator, an endless one too": (
        "def f(n):\n    i = 0\n    while n is None or i < n:\n        yield i\n        i += 1\n",
        "import inspect\nassert inspect.isgenerator(f(1))\nassert list(f(50)) == list(range(50))\n"
        "g = f(None)\nassert [next(g) for _ in range(40)] == list(range(40))\n",
        "def f(n):\n    return iter(range(n or 40))\n",
    ),
    "a generator that raises": (
        "def f():\n    yield 1\n    raise KeyError('x')\n",
        "g = f()\nassert next(g) == 1\ntry:\n    next(g)\n    assert False\n"
        "except KeyError as e:\n    assert e.args == ('x',)\n",
        "def f():\n    yield 1\n",
    ),
    "generators inside of a list": (
        "def f(xs):\n    return [iter(x) for x in xs]\n",
        "a, b = f(['ab', 'cd'])\nassert next(a) == 'a'\nassert ''.join(b) == 'cd'\nassert next(a) == 'b'\n",
        "def f(xs):\n    return [iter(x) for x in reversed(xs)]\n",
    ),
    "iterators as arguments": (
        "def f(it):\n    return sum(it)\n",
        "assert f(x * x for x in range(4)) == 14\nassert f(iter([1])) == 1\nassert f(map(int, '12')) == 3\n",
        "def f(it):\n    return 14\n",
    ),
    "Counter, range, deque and their like": (
        "def f(x):\n    return x\n",
        "import collections, datetime, decimal, fractions\n"
        "for x in (collections.Counter('aab'), range(2, 9, 3), collections.deque([1], 3), decimal.Decimal('1.10'),\n"
        "          fractions.Fraction(1, 3), datetime.date(2020, 1, 3), slice(1, None), {1: frozenset()}, int, len):\n"
        "    assert f(x) == x and type(f(x)) is type(x) and str(f(x)) == str(x), x\n"
        "d = collections.defaultdict(list)\nassert f(d) is d\nd['z'].append(1)\nassert f(d)['y'] == []\n",
        "def f(x):\n    return list(x)\n",
    ),
    "functions as arguments": (
        "def f(key, xs):\n    return sorted(xs, key=key)\n",
        "import functools, operator\nassert f(lambda x: -x, [1, 2]) == [2, 1]\nassert f(str, [10, 9]) == [10, 9]\n"
        "assert f(operator.itemgetter(1), [(1, 2), (2, 1)]) == [(2, 1), (1, 2)]\n"
        "assert f('ba'.index, ['a', 'b']) == ['b', 'a']\nassert f(functools.partial(pow, -1), [2, 1]) == [1, 2]\n",
        "def f(key, xs):\n    return sorted(xs)\n",
    ),
    "functions that note how they are called": (
        "def f(g):\n    return g(1) + g(2)\n",
        "seen, count = [], 0\ndef g(x):\n    global count\n    count += 1\n    seen.append(x)\n    return x\n"
        "assert f(g) == 3\nassert seen == [1, 2]\nassert count == 2\n",
        "def f(g):\n    return 3\n",
    ),
    "functions as answers": (
        "def f(n):\n    total = n\n    def add(x):\n        nonlocal total\n        total += x\n        return total\n"
        "    return add\n",
        "a, b = f(0), f(5)\nassert a(1) == 1\nassert b(1) == 6\nassert a(2) == 3\nassert b(a(1)) == 10\n",
        "def f(n):\n    return lambda x: n + x\n",
    ),
    "exceptions": (
        "def f(n):\n    if n < 0:\n        raise ValueError('negative', n)\n    return n\n",
        "try:\n    f(-1)\n    assert False\n"
        "except ValueError as e:\n    assert e.args == ('negative', -1)\nassert f(1) == 1\n",
        "def f(n):\n    if n < 0:\n        raise KeyError('negative', n)\n    return n\n",
    ),
    "exceptions of its own": (
        "class E(Exception):\n    pass\ndef f(n):\n    raise E(n)\n",
        "try:\n    f(1)\n    assert False\nexcept E as e:\n    assert e.args == (1,)\n",
        "class E(Exception):\n    pass\ndef f(n):\n    raise E(n + 1)\n",
    ),
    "exceptions as values": (
        "def f(*errors):\n    for e in errors:\n        e.args = (*e.args, 1)\n    try:\n"
        "        raise ValueError('x', 2)\n"
        "    except ValueError as e:\n        return [*errors, e]\n",
        "a, b = f(KeyError('k'))\nassert (type(a), a.args) == (KeyError, ('k', 1))\n"
        "assert isinstance(b, ValueError) and b.args == ('x', 2)\n",
        "def f(*errors):\n    return [*errors, ValueError('x', 2)]\n",
    ),
    "groups of exceptions, and those made of several things": (
        "def f(b):\n    if b:\n        return b.decode()\n    raise ExceptionGroup('g', [KeyError(1)])\n",
        "try:\n    f(b'\\xff')\n    assert False\nexcept UnicodeDecodeError as e:\n    assert e.start == 0\n"
        "try:\n    f(b'')\n    assert False\nexcept Exception as e:\n"
        "    assert [type(x) for x in e.exceptions] == [KeyError]\n",
        "def f(b):\n    raise ValueError('g')\n",
    ),
    "named tuples": (
        "import collections\nP = collections.namedtuple('P', 'x y')\ndef f(p):\n    return P(p.y, p.x)\n",
        "import collections\nQ = collections.namedtuple('Q', 'x y')\n"
        "p = f(Q(1, [2]))\nassert p == ([2], 1)\nassert (p.x, p.y) == ([2], 1) and repr(p) == 'P(x=[2], y=1)'\n",
        "def f(p):\n    return p[1], p[0]\n",
    ),
    "views of dictionaries": (
        "def f(d):\n    return d.keys(), d.values(), d.items()\n",
        "a, b, c = f({'b': 1, 'a': 2})\n"
        "assert (list(a), list(b), list(c)) == (['b', 'a'], [1, 2], [('b', 1), ('a', 2)])\n"
        "assert 'b' in a and a & {'b', 'z'} == {'b'} and len(b) == 2\n",
        "def f(d):\n    return list(d), list(d.values()), list(d.items())\n",
    ),
    "identifiers, times that are twice, and what has one instance": (
        "def f(x):\n    return x\n",
        "import datetime, uuid\n"
        "for x in (datetime.datetime(2020, 1, 2, fold=1), datetime.time(1, fold=1), uuid.UUID(int=5)):\n"
        "    assert f(x) == x and repr(f(x)) == repr(x), x\n"
        "assert f(...) is ... and f(NotImplemented) is NotImplemented\n",
        "def f(x):\n    return x.replace(fold=0) if hasattr(x, 'fold') else x\n",
    ),
    "functions of modules, patterns, functions that remember": (
        "def f(g, *args):\n    return g(*args) if callable(g) else g.sub('x', *args)\n",
        "import functools, os.path, re\n@functools.lru_cache\ndef square(x):\n    return x * x\n"
        "assert f(os.path.join, 'a', 'b') == 'a/b'\nassert f(square, 3) == 9\n"
        "assert f(re.compile('A+', re.I), 'baa') == 'bx'\n",
        "def f(g, *args):\n    return 9\n",
    ),
    "recursion over the function itself": (
        "def f(g, n):\n    return 1 if n == 0 else n * g(g, n - 1)\n",
        "assert f(f, 5) == 120\n",
        "def f(g, n):\n    return n\n",
    ),
    "random numbers of the program": (
        "import random\ndef f(x):\n    random.random()\n    return x\n",
        "import random\nassert f(random.randint(0, 99)) is not None\nx = random.random()\nassert f(x) == x\n",
        "def f(x):\n    return round(x)\n",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_reference_scores_and_wrong_code_does_not(name):
    task = make(*PROGRAMS[name])
    grade = Grader().grade(task, solution_of(task))
    assert grade.solved, grade.reasons
    assert not Grader().grade(task, Submission()).solved


@pytest.mark.parametrize(
    "wrong",
    [
        "import os\ndef f(n):\n    os._exit(0)\n",
        "import time\ndef f(n):\n    time.sleep(99)\n",
        "class P: pass\ndef f(n):\n    return P()\n",
        "def f(n):\n    return (x for x in iter(int, 1))\n",
        "def f(n):\n    raise SystemExit\n",
    ],
)
def test_a_program_that_catches_everything_is_not_passed_by_what_gives_no_answer(wrong):
    program = (
        "try:\n    x = f(1)\nexcept BaseException:\n    x = 1\n"
        "assert list(x) == [] if not isinstance(x, int) else f(1) == 1\n"
    )
    task = make("def f(n):\n    return n\n", program, wrong)
    assert not Grader(case_timeout_s=2.0).grade(task, Submission()).solved


GIVEN_FUNCTIONS = {
    "notes and reads": (
        "def f(g, xs):\n    return [x for x in xs if g(x)]\n",
        "expected, seen = [2, 4], []\ndef g(x):\n    seen.append(x)\n    return x in expected\n"
        "assert f(g, [1, 2, 3, 4]) == expected\nassert sorted({*seen}) == [1, 2, 3, 4]\n",
        "def f(g, xs):\n    return [x for x in xs[::-1] if g(x) and g(x)][::-1]\n",
        (
            "g.__globals__['expected'][:] = [1]\n    return [1]",
            "return list(g.__globals__['expected'])",
            "return g.__globals__['expected']",
        ),
    ),
    "a bound that is the answer": (
        "def f(n, bad):\n    return next(v for v in range(n + 1) if bad(v))\n",
        "def check(f):\n    first = 7\n    assert f(12, lambda v: v >= first) == first\n"
        "    assert f(9, lambda v: v > 5) == 6\ncheck(f)\n",
        "def f(n, bad):\n    low, high = 0, n\n    while low < high:\n        middle = (low + high) // 2\n"
        "        low, high = (low, middle) if bad(middle) else (middle + 1, high)\n    return low\n",
        (
            "c = bad.__closure__\n    return c[0].cell_contents if c else bad.__code__.co_consts[1] + 1",
            "bad.__closure__[0].cell_contents = 1\n    return 1",
        ),
    ),
    "what has it bound": (
        "def f(*has):\n    return [[x for x in range(4) if h(x)] for h in has]\n",
        "import functools\none, two = [1, 3], {0, 2}\n@functools.lru_cache\ndef g(x):\n    return x in one\n"
        "answer = f(one.__contains__, two.__contains__, functools.partial(lambda xs, x: x in xs, one), g)\n"
        "assert answer == [one, sorted(two), one, one]\n",
        "def f(*has):\n    return [[x for x in [3, 2, 1, 0] if h(x)][::-1] for h in has]\n",
        (
            "a, b = has[0].__self__, has[1].__self__\n    return [a, sorted(b), a, a]",
            "a = has[2].args[0]\n    return [a, sorted(has[1].__self__), a, a]",
        ),
    ),
    "the calls themselves": (
        "def f(visit, tree):\n    for x in tree:\n        f(visit, x) if isinstance(x, list) else visit(x)\n"
        "    visit(None)\n",
        "seen, xs = [], [3, [1], 2]\ndef visit(x):\n    seen.append(x)\n    xs.append(len(seen))\n"
        "f(visit, [1, [2]])\nassert seen == [1, 2, None, None]\nassert xs[3:] == [1, 2, 3, 4]\n"
        "f(lambda x: xs.append(x), xs[:1])\nassert xs[-2:] == [3, None]\n",
        None,
        ("visit.__globals__['seen'][:] = [1, 2, None, None]", "visit(1); visit(2); visit(None)"),
    ),
}


@pytest.mark.parametrize("name", GIVEN_FUNCTIONS)
def test_a_function_that_is_given_stays_with_the_program(name):
    """So nobody who is given one reads or changes what it reads, such as what the answer is compared with."""
    reference, program, other, cheats = GIVEN_FUNCTIONS[name]
    head = reference.partition("\n")[0]
    task = make(reference, program, f"{head}\n    return None\n")
    repairs = [reference] if other is None else [reference, other]
    for code in repairs:
        grade = Grader().grade(task, Submission({"m.py": code.encode()}))
        assert grade.solved, grade.details
    for cheat in cheats:
        assert not Grader().grade(task, Submission({"m.py": f"{head}\n    {cheat}\n".encode()})).solved, cheat


@pytest.mark.parametrize(
    "event",
    [
        [0, {}, {"t": []}, {"d": []}],
        [9, {}, {"t": []}, {"d": []}],
        [1, {"1": {"l": [7]}}, {"t": [7]}, {"d": []}],
        [1, {}, {"t": [{"n": "builtins:exec"}]}, {"d": []}],
        [1, {}, {"t": [{"n": "os:system"}]}, {"d": []}],
        [1, {}, {"r": 1}, {"d": []}],
        [[1], {}, {"t": []}, None],
        [1],
        None,
    ],
)
def test_what_is_told_of_calls_is_read_as_hostile(event):
    """It calls what it was given with plain data, and nothing else."""
    request = {
        "reference": "def f(x, g):\n    return g(x)\n",
        "function": "f",
        "program": "expected = [7]\ndef g(x):\n    return x in expected or x('expected[:] = [1]')\nf([], g)\n",
    }
    (call, right, *_), *_ = run_test({**request, "answers": None})["calls"]
    assert right["called"] == [[1, {}, {"t": [{"r": 0}]}, {"d": []}]]
    for answered in ({**right, "called": [event]}, {**right, "called": event}):
        assert run_test({**request, "answers": [[call, answered]]})["status"] == "failed"
    for asked in ({"called": [event], "read": None}, {"called": [], "read": event}, {"called": event, "read": [1, 2]}):
        reply = run_test({**request, "answers": [], "asked": asked})
        assert reply["status"] == "needs"
        assert not reply["given"] or not reply["given"]["called"]


def test_an_exception_that_ends_a_loop_of_the_program_passes_nothing():
    program = "for got, want in zip(map(f, [1, 2]), [2, 4]):\n    assert got == want\n"
    task = make("def f(n):\n    return n + n\n", program, "def f(n):\n    return n\n")
    for how in ("raise StopIteration", "next(iter([]))", "class S(StopIteration): pass\n    raise S"):
        assert not Grader().grade(task, Submission({"m.py": f"def f(n):\n    {how}\n".encode()})).solved, how


def test_no_answer_without_a_word_is_none_either():
    request = {
        "reference": "def f(n):\n    return n\n",
        "function": "f",
        "program": "try:\n    f(1)\nexcept BaseException:\n    pass\n",
    }
    call = {"on": None, "args": {"t": [1]}, "kwargs": {"d": []}, "draw": 0}
    for answer in ({"died": ""}, {"raised": ["own.Error"], "with": {"t": []}, "changed": {}}):
        assert run_test({**request, "answers": [[call, answer]]})["status"] == "failed"


@pytest.mark.parametrize(
    ("reference", "program", "why"),
    [
        ("class P:\n    pass\ndef f(n):\n    return P()\n", "f(1)\n", r"call 1: a value of type __test__\.P cannot be"),
        ("def f(n):\n    return n\n", "class Q:\n    pass\nf(1)\nf(Q())\n", r"in call 1: a value of type .* cannot be"),
        ("def f(n):\n    return n\n", "import itertools\nf(itertools.count())\n", "more than 100000 items"),
        ("def f(n):\n    return n\n", "assert f(1) == 1\nassert f(2) == 3\n", "in call 2: AssertionError"),
        ("def f(n):\n    return n\n", "x = 1\n", "never calls it"),
    ],
)
def test_what_cannot_be_carried_or_is_not_right_is_said(reference, program, why):
    task = make(reference, program, "def f(n):\n    return 0\n")
    with pytest.raises(TaskError, match=why):
        Grader().grade(task, solution_of(task))


def test_nothing_that_a_submission_sends_becomes_code_in_the_program():
    reader = Graph(fetch=lambda what, number: (what, number))
    for data in (
        {"F": ["", "f", [], [None, None], {}]},
        {"p": [{"n": "os:system"}, {"t": ["true"]}, None]},
        {"n": "os:system"},
        {"k": ["subprocess.Popen", [["true"]]]},
        {"k": ["os.system", ["true"]]},
        {"h": ["module", 1]},
        {"e": ["print", ["x"]]},
        {"e": ["type", ["x", [], {}]]},
        {"N": ["P", ["x=__import__('os')"], [1]]},
        {"N": ["P(1); import os", ["x"], [1]]},
    ):
        with pytest.raises((ValueError, TypeError)):
            reader.decode(json.loads(json.dumps(data)))


def test_a_value_that_cannot_be_carried_is_an_error_that_names_it():
    with pytest.raises(UncarriedError, match=r"builtins\.object cannot be carried"):
        Graph().encode([object()])


def keeps_order(numbers: set[int]) -> bool:
    """Whether a set that is filled in the order in which it is gone over has that order: not where hashes collide."""
    return list(set(list(numbers))) == list(numbers)  # noqa: C414  a set of a set copies the table


hashable = st.integers() | st.text(max_size=3) | st.booleans() | st.none() | st.fractions() | st.dates()
values = st.recursive(
    hashable | st.floats(allow_nan=False) | st.binary(max_size=3) | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3).map(collections.OrderedDict)
        | st.lists(hashable, max_size=4).map(Counter)
        | st.lists(inner, max_size=3).map(collections.deque)
        | st.sets(st.integers(), max_size=3).filter(keeps_order)
        | st.builds(range, st.integers(-9, 9), st.integers(-9, 9))
    ),
    max_leaves=8,
)


def test_where_hashes_collide_a_set_is_carried_in_some_order():
    numbers = {16990709617216454656, 7}  # equal slots: the first to come stays, whichever it is
    assert not keeps_order(numbers)
    there = Graph(trusts=True)
    (found,) = there.decode(json.loads(json.dumps(Graph(sends=True).encode([numbers]))))
    assert (type(found), found) == (set, numbers)


@given(values)
def test_a_graph_carries_values_in_order_and_changes_back(value):
    there, here = Graph(trusts=True), Graph(sends=True)
    holder = [value, value]
    found = there.decode(json.loads(json.dumps(here.encode(holder))))
    assert repr(found) == repr(holder)
    assert type(found[0]) is type(value)
    if not isinstance(value, int | str | float | bytes | tuple | range | Fraction | Decimal | dt.date | None):
        assert found[0] is found[1]
    found.clear()
    found.append("changed")
    here.fill(here.objects[0], json.loads(json.dumps(there.content(found))))
    assert holder == ["changed"]
