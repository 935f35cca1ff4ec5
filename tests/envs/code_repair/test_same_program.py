"""The same program says the same to the agent and to the grader, on every back end."""

import json
import re
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sandbox_backends import marks, open_at, skip_without

from agentenv.envs.code_repair import Case, Grader, RepairTask, Submission, TestSuite
from agentenv.envs.code_repair.pytest_files import install_pytest, pytest_archive
from agentenv.envs.code_repair.submissions import spec_of
from agentenv.envs.code_repair.suite_running import Run, open_suite, run_suite

PLACES = [pytest.param(place, marks=marks(place)) for place in ("namespace", "docker", "podman", "runsc", "gvisor")]
EXAMPLES = {"namespace": 5}
"""How many programs are tried; fewer where a sandbox costs more."""

BESIDE = {
    "data.txt": "one\ntwo\n",
    "utf.txt": "caf\xe9 \u2603\n",
    "pkg/__init__.py": "",
    "pkg/__main__.py": "import sys\nprint('main', sys.argv[1:])\n",
    "pkg/table.csv": "a,b\n1,2\n",
}
"""What lies beside a program."""

MODULES = ("json", "decimal", "ast", "hashlib", "unittest", "random", "fractions", "math", "datetime", "re", "marshal")
PARTS = (
    *("importlib.util", "importlib.machinery", "importlib.resources", "xml.etree", "concurrent.futures", "os.path"),
    *("logging.handlers", "email.message", "collections.abc", "json.decoder", "unittest.mock", "http.client"),
    *("encodings.idna", "multiprocessing.pool", "asyncio.tasks", "urllib.parse", "wsgiref.util", "ctypes.util"),
)
WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=2, max_size=9, unique=True)
CODES = (
    "import prog; print(prog.__name__, prog.MARK)",
    "import sys; print(sys.flags, sys.warnoptions, sys.stdin.encoding)",
    "import os; print(sorted(k for k in os.environ if k.startswith('PY') or k in ('LANG', 'TZ', 'HOME', 'TMPDIR')))",
    "import os; print({k: v for k, v in sorted(os.environ.items()) if k.startswith('PYTHON')})",
    "print(list({'a', 'b', 'c', 'd'}), hash('x'))",
    "import sys; print(sys.path[1:])",
    "exit(3)",
)
WARNINGS = ("UserWarning", "DeprecationWarning", "PendingDeprecationWarning", "ResourceWarning", "SyntaxWarning")
LOOKS = (
    "import builtins\n    return sorted(n for n in vars(builtins) if n != '_')",
    # the process
    "import sys\n    return sys.argv",
    "import sys\n    return sys.path",
    "import sys\n    return str(sys.flags)",
    "import sys\n    return [sys.executable, sys.prefix, sys.version, sys.getrecursionlimit()]",
    "import os\n    return {k: v for k, v in os.environ.items() if k != 'PYTEST_CURRENT_TEST'}",
    "import os\n    return [os.getcwd(), oct(os.umask(18)), os.nice(0)]",
    "import threading, gc, signal, sys\n    return [threading.active_count(), gc.isenabled(), sys.gettrace() is None,"
    " signal.getsignal(signal.SIGINT) is signal.default_int_handler]",
    "import argparse\n    p = argparse.ArgumentParser(prog='p')\n    return p.parse_known_args()[1]",
    "import resource\n    return [resource.getrlimit(getattr(resource, n)) for n in ('RLIMIT_NOFILE', 'RLIMIT_STACK')]",
    "import time\n    return [time.tzname, time.strftime('%H', time.gmtime(0))]",
    # encodings and locale
    "return open('utf.txt').read()",
    "return [open('utf.txt').encoding, open('utf.txt', 'rb').read()]",
    "import locale\n    return [locale.getpreferredencoding(), locale.setlocale(locale.LC_ALL), locale.getlocale()]",
    "import sys\n    return [sys.getdefaultencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()]",
    "import os\n    return [os.fsencode('caf\\xe9'), 'caf\\xe9'.encode(), ascii('\\u2603')]",
    # files beside, relative paths
    "return open('data.txt').read()",
    "return open('../data.txt').read()",
    "import pathlib\n    return pathlib.Path(__file__).read_text().count('MARK')",
    "import pathlib\n    return [p.name for p in sorted(pathlib.Path(__file__).parent.iterdir())]",
    "import os\n    return [__file__, __name__, os.path.abspath('x'), os.path.exists('tests')]",
    "import os\n    return os.path.expanduser('~')",
    "import pkgutil\n    return pkgutil.get_data('pkg', 'table.csv')",
    "import importlib.resources\n    return importlib.resources.files('pkg').joinpath('table.csv').read_text()",
    "import tempfile, os\n    d = tempfile.gettempdir()\n    return [d, os.access(d, os.W_OK)]",
    "open('left.txt', 'w').write('x')\n    return open('left.txt').read()",
    "import os\n    return oct(os.stat('data.txt').st_mode)",
    # imports
    "import this_is_no_module",
    "import prog\n    return prog.MARK",
    "from pkg import table",
    "import test_visible",
    "import tests",
    "import pip",
    # warnings
    "import warnings\n    return [str(f[:1]) + str(f[2]) for f in warnings.filters]",
    "import sys\n    return sys.warnoptions",
    "import logging\n    return [logging.getLogger().level, len(logging.getLogger().handlers)]",
)


EXITS = (
    "exit(4)",
    "quit()",
    "raise SystemExit('x')",
    "import sys\n    sys.exit(0)",
    "import builtins\n    builtins.exit()",
)
"""Some of them close standard input, as they do for everybody, which those that follow in the same process notice."""
READS = (
    "return input()",
    "import sys\n    return sys.stdin.read()",
    "import sys\n    return [sys.stdin.isatty(), sys.stdin.encoding, sys.stdin.errors]",
)


@st.composite
def bodies(draw):
    """Draws the body of a function, of which what it returns or raises is compared."""
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return f"import sys\n    return {draw(st.sampled_from(MODULES))!r} in sys.modules"
    if kind == 1:
        package, _, part = draw(st.sampled_from(PARTS)).rpartition(".")
        return f"import {package}\n    return hasattr({package}, {part!r})"
    if kind == 2:
        words = draw(WORDS)
        return f"return [list({set(words)!r}), list(set({words!r}) - {{'a'}}), hash({words[0]!r})]"
    if kind == 3:
        options = draw(st.sampled_from(("", ", cwd='/'", ", cwd='pkg'", ", env={}", ", input='x'")))
        return (
            f"import subprocess, sys\n    argv = [sys.executable, '-c', {draw(st.sampled_from(CODES))!r}]\n"
            f"    r = subprocess.run(argv, capture_output=True, text=True{options})\n"
            "    return [r.returncode, r.stdout, r.stderr.splitlines()[-1:]]"
        )
    if kind == 4:
        words = draw(WORDS)
        return (
            f"import subprocess, sys\n    return subprocess.run([sys.executable, '-m', 'pkg', *{words!r}], "
            "capture_output=True, text=True).stdout"
        )
    if kind == 5:
        warned = draw(st.lists(st.sampled_from(WARNINGS), min_size=1, max_size=4))
        calls = "".join(f"\n        warnings.warn('w', {name})" for name in warned)
        return (
            f"import warnings\n    with warnings.catch_warnings(record=True) as seen:{calls}\n"
            "    return [str(w.category) for w in seen]"
        )
    return draw(st.sampled_from((*LOOKS, *EXITS)))


programs = st.lists(bodies(), min_size=4, max_size=8, unique=True)
"""Bodies of the functions of one program."""


def source_of(program):
    """Returns the module of a program."""
    functions = [f"def f{number}():\n    {body}\n" for number, body in enumerate(program)]
    return "\n\n".join(["MARK = 7\n", *functions])


PROBE = """
import json

import prog


def look():
    found = []
    for number in range(NUMBER):
        try:
            found.append(["expected", repr(getattr(prog, f"f{number}")())])
        except BaseException as error:
            kind = type(error)
            name = kind.__qualname__
            found.append(["raises", name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"])
    with open("/tmp/found.json", "w") as file:
        json.dump(found, file)
"""


def look(sandbox, count, command, header, footer):
    """Returns what the functions of a program give where the visible tests run."""
    probe = PROBE.replace("NUMBER", str(count))
    sandbox.write("tests/test_visible.py", f"{header}{probe}{footer}")
    result = sandbox.exec(command)
    found = sandbox.exec(["cat", "/tmp/found.json"])
    assert found.exit_code == 0, result
    sandbox.exec("rm -rf tests left.txt /tmp/found.json")
    return json.loads(found.stdout)


def spoiled(found, wrong):
    """Returns the expectations, some of them made wrong: the visible and the hidden test fail then."""
    return [
        (kind, value) if number not in wrong else ("expected", "'something else'")
        for number, (kind, value) in enumerate(found)
    ]


def agree_on_cases(open_, program, wrong):
    files = {**BESIDE, "prog.py": source_of(program)}
    task = RepairTask(
        instruction="x", files={**files, "tests/test_visible.py": ""}, hidden=(Case(call="1", expected="1"),)
    )
    header, footer = "import unittest\n", "\n\nclass A(unittest.TestCase):\n    def test(self):\n        look()\n"
    with closing(open_(spec_of(task))) as sandbox:
        found = spoiled(look(sandbox, len(program), task.command, header, footer), wrong)
        given: Any = [{kind: value} for kind, value in found]
        cases = tuple(Case(call=f"prog.f{n}()", **expected) for n, expected in enumerate(given))
        shown: Any = files
        task = RepairTask(instruction="x", files=shown, setup="import prog", visible=cases, hidden=cases)
        sandbox.upload(task.workspace())
        seen = sandbox.exec(task.command)
    failing = {int(number) - 1 for number in re.findall(r"^(?:FAIL|ERROR): test_(\d+) ", seen.stderr, re.MULTILINE)}
    assert f"Ran {len(program)} test" in seen.stderr
    grade = Grader(open_).grade(task, Submission(), stop_early=False)
    graded = {int(re.findall(r"^case (\d+)", reason)[0]) - 1 for reason in grade.reasons}
    assert graded == failing, [(program[n], grade.details) for n in graded ^ failing]
    assert failing >= wrong


def agree_on_suites(open_, program, wrong):
    files = {**BESIDE, "prog.py": source_of(program)}
    names = [f"tests/test_visible.py::test_{n}" for n in range(len(program))]
    suite = TestSuite(fail_to_pass=tuple(names))
    task = RepairTask(instruction="x", files={**files, "tests/test_visible.py": ""}, suite=suite)
    header, footer = "", "\n\ndef test():\n    look()\n"
    with closing(open_(spec_of(task))) as sandbox:
        install_pytest(sandbox, pytest_archive(open_))
        found = spoiled(look(sandbox, len(program), task.command, header, footer), wrong)
        tests = "".join(
            f"def test_{n}():\n    assert prog.f{n}() == {value}\n\n"
            if kind == "expected"
            else f"def test_{n}():\n    with pytest.raises({value}):\n        prog.f{n}()\n\n"
            for n, (kind, value) in enumerate(found)
        )
        task = task.model_copy(
            update={"files": {**files, "tests/test_visible.py": f"import pytest\nimport prog\n\n{tests}"}}
        )
        sandbox.upload(task.workspace())
        seen = sandbox.exec(task.command)
    failing = {*re.findall(r"^FAILED (\S+)", seen.stdout, re.MULTILINE)}
    assert f"{len(failing)} failed" in seen.stdout or not failing
    with closing(open_suite(open_, task, suite)) as sandbox:
        report = run_suite(sandbox, task, suite, Run(tuple(names)), np.random.default_rng(0))
    assert not report.problem, report
    hidden = {name for name, word in report.outcomes.items() if word == "failed"}
    assert report.outcomes.keys() == {*names}
    assert hidden == failing, [program[names.index(name)] for name in hidden ^ failing]
    assert hidden >= {names[n] for n in wrong}


def check(agree, place):
    skip_without(place)

    @settings(max_examples=EXAMPLES.get(place, 1), deadline=None)
    @given(programs, st.sets(st.integers(0, 3), max_size=2))
    @example([*LOOKS, *READS], {0, 5})
    @example([*EXITS], {0})
    def tried(program, wrong):
        agree(open_at(place), program, wrong)

    tried()


@pytest.mark.parametrize("place", PLACES)
def test_visible_and_hidden_cases_say_the_same(place):
    check(agree_on_cases, place)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_visible_and_hidden_suites_say_the_same(place):
    check(agree_on_suites, place)
