"""The Python that is written for others, into a folder of theirs, knows every name that it uses.

Most of it runs only where the package of a peer is installed; a name that a template lost is found without it.
"""

import builtins
import symtable

import pytest

from agentenv.cli.new import new
from agentenv.envs.code_repair import bundled_tasks
from agentenv.exports import write_harbor, write_nemo_gym
from agentenv.interop import write_verifiers_folder
from agentenv.interop.openenv_package import write_openenv_folder

OF_A_MODULE = {"__file__", "__name__", "__doc__", "__spec__", "__path__"}
WRITERS = {
    "verifiers, version 0": lambda out: write_verifiers_folder("agentenv/MathVerifier-v0", out, version=0),
    "verifiers, version 1": lambda out: write_verifiers_folder("agentenv/CodeRepair-v0", out, version=1),
    "openenv": lambda out: write_openenv_folder("agentenv/MathVerifier-v0", out, actions=["1"]),
    "nemo gym": lambda out: write_nemo_gym("agentenv/MathVerifier-v0", out, 1),
    "harbor": lambda out: write_harbor(bundled_tasks()[:1], out),
    "new": lambda out: new(out.name, out.parent),
}


def unknown_names(text: str, path: str = "module.py") -> set[str]:
    """Returns the names that a module reads and neither makes, imports nor finds among the builtins."""
    module = symtable.symtable(text, path, "exec")
    known = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    known |= set(dir(builtins)) | OF_A_MODULE

    def read(table: symtable.SymbolTable) -> set[str]:
        of_module = {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (symbol.is_global() or table is module)
        }
        return of_module.union(*(read(child) for child in table.get_children()))

    return read(module) - known


@pytest.mark.parametrize("who", WRITERS)
def test_what_is_written_knows_its_names(who, tmp_path):
    folder = tmp_path / "written"
    WRITERS[who](folder)
    modules = sorted(folder.rglob("*.py"))
    assert modules, "nothing was written"
    texts = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in modules}
    unknown = {path: sorted(unknown_names(text, path)) for path, text in texts.items()}
    assert not any(unknown.values()), unknown


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("OPTIONS = json.loads('1')", {"json"}),
        ("def f():\n    return json.loads('1')", {"json"}),
        ("import json\ndef f(a):\n    b = [c for c in a]\n    return json.dumps(b), len(b), __file__", set()),
        ("class A:\n    x: Path = Path('.')", {"Path"}),
    ],
)
def test_names_are_looked_for_everywhere(text, unknown):
    assert unknown_names(text) == unknown
