"""What pip calls this package, and that the commands which the code prints install it and nobody else's."""

import re
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import agentenv
from agentenv import distribution
from agentenv.distribution import DISTRIBUTION, EXTRA_OF, install_extra, install_module, pip_install
from agentenv.errors import MissingDependencyError
from agentenv.lazy import lazy_names

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("agentenv", "agents", "credit", "sandboxes", "trainers", "docs", "benchmarks", ".ci", ".github")


def test_the_distribution_has_the_version_of_the_package():
    assert metadata.version(DISTRIBUTION) == agentenv.__version__
    scripts = metadata.distribution(DISTRIBUTION).entry_points.select(group="console_scripts")
    assert [script.value for script in scripts if script.name == "agentenv"] == ["agentenv.cli:main"]


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the repository, not a wheel")
def test_an_extra_that_a_remedy_names_brings_the_module():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == DISTRIBUTION
    for module, extra in EXTRA_OF.items():
        brought = {Requirement(line).name for line in project["optional-dependencies"][extra]}
        assert module.replace("_", "-") in brought


@pytest.mark.skipif(not (ROOT / "constraints.txt").exists(), reason="needs the repository, not a wheel")
def test_in_a_checkout_the_remedies_install_from_it_into_the_interpreter_that_runs():
    for command in (install_extra("docker"), install_module("docker.errors")):
        *pip, _, constraints, _, place = shlex.split(command)
        assert pip[-3:] == ["-m", "pip", "install"] or pip[:3] == ["uv", "pip", "install"]
        assert sys.executable in pip
        assert Path(constraints).samefile(ROOT / "constraints.txt")
        folder, _, extra = place.partition("[")
        assert Path(folder).samefile(ROOT) and extra == "docker]"
    assert shlex.split(pip_install("trl>=1,<2"))[-1] == "trl>=1,<2"


def test_outside_of_a_checkout_the_remedy_names_the_distribution(monkeypatch, tmp_path):
    monkeypatch.setattr(distribution, "_ROOT", tmp_path)
    assert install_extra("train").endswith(" 'agentenv-rl[train]'")
    assert install_module("torch._C").endswith(" 'agentenv-rl[train]'")
    assert install_module("pyarrow.parquet").endswith(" install pyarrow")


@pytest.mark.parametrize(("missing", "remedy"), [("no_such_engine", r"\[vllm\]'$"), ("no_such_form", "no-such-form$")])
def test_a_name_that_needs_a_missing_package_says_how_to_install_it(missing, remedy, monkeypatch, tmp_path):
    folder = tmp_path / f"needing_{missing}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "part.py").write_text(f"import {missing}.inner")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRA_OF, "no_such_engine", "vllm")
    getattribute, names = lazy_names(folder.name, {"Thing": "part", "Other": "part"})
    with pytest.raises(MissingDependencyError, match=f"{folder.name}.Thing needs {missing}: .*pip install.*{remedy}"):
        getattribute("Thing")
    assert names() == ["Other", "Thing"]


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the repository, not a wheel")
def test_nothing_tells_anyone_to_install_somebody_elses_package():
    files = [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    for folder in SOURCES:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wrong = re.compile(r"install[^\n]*\s['\"]?agentenv(?!-rl)(\[|==|>=|['\"]?\s*$)|['\"]agentenv\[", re.MULTILINE)
    for path in files:
        if path.suffix not in {".png", ".svg"}:
            found = wrong.search(path.read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{path}: {found and found[0]}"
