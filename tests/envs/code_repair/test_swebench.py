"""Rows of SWE-bench, from real git repositories made here, with a future that must not be seen."""

import functools
import importlib.util
import io
import json
import os
import re
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from sandbox_backends import skip_without

from agentenv.envs.code_repair import CodeRepair, Grader, Submission, collect_submission, read_swebench, read_tasks
from agentenv.envs.code_repair.repositories import GitTree, apply_patch, list_files, read_file
from agentenv.envs.code_repair.submissions import solution_of, spec_of
from agentenv.errors import TaskError
from agentenv.sandboxes import open_sandbox

BROKEN = "from textwrap import dedent\n\n\ndef slug(text):\n    return text.lower().replace(' ', '_')\n"
RIGHT = BROKEN.replace("'_'", "'-'")
OLD_TEST = "from words import slug\n\n\ndef test_lower():\n    assert slug('AbC') == 'abc'\n"
NEW_TEST = OLD_TEST + (
    "\n\ndef test_spaces():\n    assert slug('a b c') == 'a-b-c'\n\n\n"
    "def test_picture(pictures):\n    assert (pictures / 'new.bin').read_bytes() == bytes(range(256))\n\n\n"
    "def test_script(pictures):\n    import subprocess\n\n"
    "    assert subprocess.run([pictures / 'run.sh'], check=True, capture_output=True).stdout == b'ran\\n'\n"
)
CONFTEST = (
    "import pathlib\n\nimport pytest\n\n\n@pytest.fixture\ndef pictures():\n    return pathlib.Path(__file__).parent\n"
)
SECRET = "the-word-of-the-future"


class Repository:
    """A repository with a past, a base, and a future that has the repair."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("src/words/__init__.py", "from words.slugs import slug as slug\n")
        self.write("src/words/slugs.py", "old\n")
        self.write("README.md", "words\n")
        self.commit("past")
        self.git("tag", "v1")
        self.write("src/words/slugs.py", BROKEN)
        self.write("tests/test_words.py", OLD_TEST)
        self.write("tests/conftest.py", CONFTEST)
        self.write("tests/run.sh", "echo old\n")
        self.write("pytest.ini", "[pytest]\naddopts = --no-such-option\nmarkers =\n    slow: takes long\n    fast\n")
        self.write("data/old.bin", bytes(range(256)))
        self.write("tool", "#!/bin/sh\necho tool\n", mode=0o755)
        self.write(".gitattributes", "data export-ignore\nREADME.md export-subst\n")
        (folder / "link").symlink_to("src/words")
        self.base = self.commit("base")
        self.write("src/words/slugs.py", RIGHT)
        self.write("docs/usage.txt", "Dashes.\n")
        (folder / "README.md").unlink()
        self.patch = self.diff()
        fixed = self.commit(f"fix {SECRET}")
        self.write("tests/test_words.py", NEW_TEST)
        self.write("tests/new.bin", bytes(range(256)))
        self.write("tests/run.sh", "#!/bin/sh\necho ran\n", mode=0o755)
        self.test_patch = self.diff()
        self.commit(f"tests {SECRET}")
        self.git("tag", "v2")
        self.git("branch", "other", fixed)

    def git(self, *words):
        names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, **names}
        done = subprocess.run(["git", *words], cwd=self.folder, env=env, check=True, capture_output=True, text=True)
        return done.stdout

    def write(self, path, content, mode=0o644):
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        place.chmod(mode)

    def commit(self, text):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", text)
        return self.git("rev-parse", "HEAD").strip()

    def diff(self):
        self.git("add", "-A")
        return self.git("diff", "--cached", "--binary", "HEAD")

    def row(self, **changes):
        return {
            "instance_id": "words-1",
            "repo": "someone/words",
            "base_commit": self.base,
            "patch": self.patch,
            "test_patch": self.test_patch,
            "problem_statement": "slug() must use dashes.",
            "FAIL_TO_PASS": json.dumps(
                [f"tests/test_words.py::{name}" for name in ("test_spaces", "test_picture", "test_script")]
            ),
            "PASS_TO_PASS": ["tests/test_words.py::test_lower"],
            **changes,
        }


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("clones") / "someone__words")


@pytest.fixture(scope="module")
def task(repository):
    return read_swebench(repository.row(), repositories=repository.folder.parent)


def verdicts(task, opener=open_sandbox):
    """Whether the solution, the untouched code, an empty file, and a part of the solution are accepted."""
    grader = Grader(opener, rounds=3)
    empty = Submission({"src/words/slugs.py": b""})
    grades = [grader.grade(task, submission) for submission in (solution_of(task), Submission(), empty)]
    return [grade.solved for grade in grades]


def test_a_row_becomes_a_task(task, repository):
    assert (task.id, task.instruction, task.base.commit) == ("words-1", "slug() must use dashes.", repository.base)
    assert set(task.solution) == {"src/words/slugs.py", "docs/usage.txt"}
    assert task.removed == ("README.md",)
    assert task.editable == ("*.md", "*.py", "*.txt")
    assert set(task.suite.files) == {"tests/test_words.py", "tests/new.bin", "tests/run.sh"}
    assert task.suite.files["tests/new.bin"] == bytes(range(256))
    assert task.suite.executable == ("tests/run.sh",)
    assert task.suite.options == {"markers": "\n    slow: takes long\n    fast"}
    assert task.suite.source == (".", "src")
    assert type(task).model_validate_json(task.model_dump_json()) == task


def test_solution_scores_one_and_the_rest_nothing(task):
    assert verdicts(task) == [True, False, False]


def test_the_workspace_is_the_commit_and_nothing_else(task):
    """Modes, links and binary files are there, attributes that shape archives do not count, no future is there."""
    with closing(open_sandbox(spec_of(task))) as sandbox:
        assert sandbox.read("data/old.bin") == bytes(range(256))
        assert sandbox.read("README.md") == b"words\n"
        assert sandbox.exec("./tool && readlink link && stat -c %a tests/run.sh").stdout == "tool\nsrc/words\n644\n"
        everything = sandbox.exec("find . -mindepth 1 | sort").stdout.split()
        inside = {path.removeprefix("./") for path in everything}
        assert {path for path in inside if "." in path or path in {"tool", "link"}} == set(task.paths())
        assert not [path for path in everything if ".git/" in path or path.endswith(".git")]


@pytest.mark.parametrize("kind", ["clone", "mirror", "packed"])
def test_no_object_of_the_future_can_be_read(task, repository, kind, tmp_path):
    """Neither the repair, its message nor its hash, in any file of the sandbox, nor is there a repository to ask."""
    folder = tmp_path / "words"
    if kind == "mirror":
        repository.git("clone", "-q", "--mirror", str(repository.folder), str(folder))
    else:
        repository.git("clone", "-q", "--no-local", str(repository.folder), str(folder))
    if kind == "packed":
        subprocess.run(["git", "gc", "-q"], cwd=folder, check=True)
    task = read_swebench(repository.row(), repositories={"someone/words": folder})
    hashes = repository.git("rev-list", "--all", "--objects").split("\n")
    future = set(hashes) - set(repository.git("rev-list", repository.base, "--objects").split("\n"))
    assert len(future) > 8
    with closing(CodeRepair(tasks=[task])) as env:
        env.reset(seed=0)
        assert env.sandbox is not None
        grep = "grep -rlsaF -f - / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev --exclude-dir=usr"
        assert env.sandbox.exec(grep, stdin="def slug").stdout == "/workspace/src/words/slugs.py\n"
        words = [SECRET, "replace(' ', '-')", "test_spaces", *(line.split(" ")[0] for line in future)]
        assert env.sandbox.exec(grep, stdin="\n".join(words)).stdout == ""
        asked = env.sandbox.exec("git log --all; git fsck --lost-found; git show v2")
        assert "not a git repository" in asked.stderr or "not found" in asked.stderr
        assert SECRET not in asked.stdout + asked.stderr


def test_the_repository_is_left_as_it_was(repository):
    before = sorted(path for path in repository.folder.rglob("*"))
    task = read_swebench(repository.row(), repositories={"someone/words": repository.folder})
    solution_of(task)
    assert task.base is not None
    apply_patch(task.base, repository.test_patch)
    assert sorted(path for path in repository.folder.rglob("*")) == before


def call(name, **arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


def test_an_episode(task):
    with closing(CodeRepair(tasks=[task], reward="fraction")) as env:
        observation, _ = env.reset(seed=0)
        assert "src/words/slugs.py" in observation[1]["content"]
        assert (
            "--no-such-option" in env.step(call("run_tests"))[0][0]["content"]
        )  # the agent sees its repository as it is
        env.step(call("run", command="echo '[pytest]' > pytest.ini"))
        assert "1 passed" in env.step(call("run_tests"))[0][0]["content"]
        env.step(call("edit_file", path="src/words/slugs.py", old="'_'", new="'-'"))
        (fork,) = env.fork(1)
        with closing(fork):
            assert fork.step(call("submit"))[1:3] == (1.0, True)
        env.step(call("write_file", path="src/words/slugs.py", content=BROKEN))
        assert env.step(call("submit"))[1:3] == (0.75, True)


def test_a_submission_cannot_bring_a_repository_of_its_own(task, tmp_path):
    """Nothing of a submission is ever read by git, so its hooks and its configuration never run."""
    mark = tmp_path / "ran"
    with closing(open_sandbox(spec_of(task))) as sandbox:
        sandbox.upload(
            {
                ".git/config": f"[core]\n\tfsmonitor = touch {mark}\n\tpager = touch {mark}\n",
                ".git/hooks/post-checkout": f"#!/bin/sh\ntouch {mark}\n",
                "src/words/slugs.py": RIGHT,
            }
        )
        submission = collect_submission(sandbox, task)
    assert set(submission.files) == {"src/words/slugs.py"}
    assert Grader(rounds=3).grade(task, submission).solved
    assert not mark.exists()


def test_a_repository_with_hooks_runs_none(repository, tmp_path):
    folder = tmp_path / "words"
    repository.git("clone", "-q", str(repository.folder), str(folder))
    mark = tmp_path / "ran"
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        hook = folder / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
        hook.chmod(0o755)
    with (folder / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = touch {mark}\n")
    tree = GitTree(repository=str(folder), commit=repository.base)
    assert "tool" in list_files(tree)
    assert read_file(tree, "tests/test_words.py") == OLD_TEST.encode()
    assert apply_patch(tree, repository.patch).deleted == ("README.md",)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repo": "someone/else"}, r"no 'someone/else' in .*git clone --mirror"),
        ({"base_commit": "0" * 40}, r"base_commit '0{40}' is not in .*git -C .* fetch"),
        ({"base_commit": "--all"}, "must be a commit"),
        ({"test_patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"}, "test_patch does not apply"),
        ({"patch": "nonsense"}, "patch does not apply"),
        ({"test_cmd": "./tests/runtests.py --verbosity 2"}, "test_cmd must be pytest's"),
        (
            {"FAIL_TO_PASS": '["test_spaces (tests.WordsTest)"]'},
            "FAIL_TO_PASS: a test must be named by its pytest node id",
        ),
        ({"FAIL_TO_PASS": '["tests/test_words.py::test_a[1 -"]'}, "must be named by its pytest node id"),
        ({"FAIL_TO_PASS": ["tests/gone.py::test_a"]}, "tests/gone.py, which neither"),
        ({"FAIL_TO_PASS": "[]"}, "fail_to_pass"),
        ({"FAIL_TO_PASS": "{}"}, "must be a list of pytest node ids"),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error(repository, tmp_path, change, message):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(repository.row(**change)))
    with pytest.raises(TaskError, match=message) as caught:
        read_tasks(rows, repositories=repository.folder.parent)
    assert "line 1" in str(caught.value)
    assert "words-1" in str(caught.value)


def test_a_row_without_repositories_says_what_to_give(repository):
    with pytest.raises(TaskError, match=r"row 0: row 'words-1': .*repositories=FOLDER"):
        read_tasks([repository.row()])


@pytest.mark.parametrize("column", ["instance_id", "repo", "base_commit", "test_patch", "FAIL_TO_PASS"])
def test_a_row_without_a_column_says_which(repository, column):
    row = repository.row()
    del row[column]
    message = rf"row '(words-1|\?)': SWE-bench column '{column}' is missing"
    with pytest.raises(TaskError, match=message):
        read_tasks([row], repositories=repository.folder.parent)
    with pytest.raises(TaskError, match=message):
        read_swebench(row, repositories=repository.folder.parent)
    with pytest.raises(TaskError, match=message):
        CodeRepair(tasks=[row])


def test_an_environment_refuses_rows_without_repositories_at_once(repository):
    with pytest.raises(TaskError, match=r"row 'words-1': .*repositories=FOLDER"):
        CodeRepair(tasks=[repository.row()])


def test_a_solution_that_does_not_pass_is_an_error(repository):
    row = repository.row(FAIL_TO_PASS=["tests/test_words.py::test_spaces", "tests/test_words.py::test_never"])
    task = read_swebench(row, repositories=repository.folder.parent)
    with pytest.raises(TaskError, match=r"solution of task 'words-1' does not pass.*test_never"):
        Grader(rounds=3).grade(task, Submission())


def test_plugins_image_and_interpreter_come_from_the_row(repository):
    row = repository.row(
        test_cmd="python -m pytest -p xdist -p no:randomly -rA tests/test_words.py",
        docker_image="someone/words:1",
        environment={"python": "/opt/env/bin/python"},
    )
    task = read_swebench(row, repositories=repository.folder.parent)
    assert task.suite is not None
    assert (task.image, task.suite.python, task.suite.plugins) == ("someone/words:1", "/opt/env/bin/python", ("xdist",))
    assert task.test_command == row["test_cmd"]


@pytest.mark.docker
def test_on_docker(task):
    skip_without("docker")
    opener = functools.partial(open_sandbox, backend="docker")
    assert verdicts(task, opener) == [True, False, False]


def source_of(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    return Path(str(spec.origin))


def rootfs(plugin):
    """Returns a small system as a tar archive: Python with pytest and a plugin, and the few commands that are used."""
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    library = Path(f"/usr/lib/python{version}")
    programs = [Path("/usr/bin") / name for name in ("sh", "rm", "chmod", "cat", f"python{version}")]
    linked = subprocess.run(
        ["ldd", *programs, *library.glob("lib-dynload/*.so")], capture_output=True, text=True, check=False
    )
    named = {Path(path) for path in re.findall(r"(/\S+\.so[.\d]*) \(0x", linked.stdout)}
    needed = {path.parent.resolve() / path.name for path in named}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in (*programs, *needed):
            tar.add(path.resolve(), str(path).removeprefix("/"), recursive=False)
        skipped = ("test", "__pycache__", "idlelib", "config-", "lib2to3")
        tar.add(library, str(library)[1:], filter=lambda m: None if Path(m.name).name.startswith(skipped) else m)
        for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
            place = f"usr/lib/python3/dist-packages/{name}"
            tar.add(source_of(name).parent, place, filter=lambda m: None if "__pycache__" in m.name else m)
        links = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/bin/python3": f"python{version}"}
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name in ("tmp", "proc", "dev", "sys", "workspace"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, data in (("wordy.py", plugin.encode()), ("py.py", source_of("py").read_bytes())):
            info = tarfile.TarInfo(f"usr/lib/python3/dist-packages/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.docker
def test_in_an_image_with_its_own_pytest(repository):
    """The image's pytest and plugin are used, and the workspace's code, not what the image has installed."""
    skip_without("docker")
    import docker

    client = docker.from_env()
    plugin = "import pytest\n\n\n@pytest.fixture\ndef word():\n    return 'A B'\n"
    client.api.import_image_from_data(rootfs(plugin), repository="agentenv-test-suites", tag="1")
    tests = "from words import slug\n\n\ndef test_word(word):\n    assert slug(word) == 'a-b'\n"
    row = repository.row(
        image_name="agentenv-test-suites:1",
        test_cmd="pytest -p wordy -q",
        FAIL_TO_PASS=["tests/test_word.py::test_word"],
        PASS_TO_PASS=[],
        test_patch="diff --git a/tests/test_word.py b/tests/test_word.py\nnew file mode 100644\n--- /dev/null\n"
        f"+++ b/tests/test_word.py\n@@ -0,0 +1,{tests.count(chr(10))} @@\n"
        + "".join(f"+{line}\n" for line in tests.splitlines()),
    )
    task = read_swebench(row, repositories=repository.folder.parent)
    opener = functools.partial(open_sandbox, backend="docker", require="container")
    try:
        assert verdicts(task, opener) == [True, False, False]
        with closing(opener(spec_of(task))) as sandbox:
            assert "pytest" not in sandbox.exec("cat /tmp/* 2>&1; echo $PATH").stdout
            assert sandbox.exec("python3 -c 'import pytest; print(pytest.__file__)'").stdout.startswith(
                "/usr/lib/python3/"
            )
    finally:
        client.images.remove("agentenv-test-suites:1", force=True)
        client.close()
