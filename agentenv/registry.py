"""Environments by id: `make`, `register`, `env_ids`. The bundled ones are known as soon as `agentenv` is imported.

Everything is registered with Gymnasium, so `gymnasium.make` finds the same environments.
"""

import difflib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator, registry

from agentenv.env import Env
from agentenv.errors import UnknownEnvError

__all__ = ["BUNDLED", "env_class", "env_ids", "import_named", "is_module", "likely_class", "make", "register"]

BUNDLED: dict[str, str] = {
    "agentenv/CodeRepair-v0": "agentenv.envs.code_repair:CodeRepair",
    "agentenv/MathVerifier-v0": "agentenv.envs.math_verifier:MathVerifier",
    "agentenv/SearchQA-v0": "agentenv.envs.search_qa:SearchQA",
}
"""Entry points of the bundled environments by id."""

_registered: list[str] = []


def register(env_id: str, entry_point: str | type[Env]) -> None:
    """Makes an environment known to `agentenv.make` and to `gymnasium.make`.

    Args:
        env_id: `"namespace/Name-v0"`; it should equal the class's `env_id`, so that snapshots name it.
        entry_point: the class, or `"package.module:Class"` to import it only when it is made.

    Raises:
        ValueError: the id has no version, or the class says another id of itself.
        TypeError: the entry point is neither.
    """
    if not isinstance(cast("object", env_id), str) or "-v" not in env_id or not env_id.rsplit("-v", 1)[1].isdigit():
        msg = f"env_id must end in a version such as '-v0', got {env_id!r}"
        raise ValueError(msg)
    is_class = isinstance(entry_point, type)
    if not (issubclass(entry_point, Env) if is_class else isinstance(entry_point, str) or callable(entry_point)):
        msg = (
            f"entry_point must be a class derived from agentenv.Env, or 'package.module:Class', got {entry_point!r:.80}"
        )
        raise TypeError(msg)
    if isinstance(entry_point, type):
        own = f"{entry_point.name}-v{entry_point.version}"
        if own != env_id:
            name, version = env_id.rsplit("-v", 1)
            msg = f"env_id is {env_id!r} but the class says {own!r}: set name = {name!r} and version = {version} in it"
            raise ValueError(msg)
    # Order enforcement and time limits are our own; Gymnasium's wrappers would hide `snapshot`.
    cast("Any", gymnasium).register(env_id, entry_point=entry_point, order_enforce=False, disable_env_checker=True)
    if env_id not in _registered:
        _registered.append(env_id)


def env_ids() -> list[str]:
    """Returns the registered ids, sorted."""
    return sorted(_registered)


def make(env_id: str, **options: Any) -> Env:
    """Makes an environment.

    Args:
        env_id: a registered id; without its version, the newest one. `"module:id"` imports a module first, which may
            register it; `"module:Class"` names a class that is not registered.
        options: arguments of the environment's class.

    Raises:
        UnknownEnvError: no such id or class; the message names the nearest one.
        ImportError: the module cannot be imported.
        TypeError: the class does not take one of the options, or the id is no text.
    """
    found = _find(env_id)
    if isinstance(found, type):
        return found(**options)
    env = gymnasium.make(found, **options)
    inner = env.unwrapped
    if not isinstance(inner, Env):
        msg = f"{env_id!r} is a Gymnasium environment, not an agentenv.Env: it cannot be branched; use gymnasium.make"
        raise UnknownEnvError(msg)
    return inner


def env_class(env_id: str) -> type[Env]:
    """Returns the class of an environment, named as for `make`.

    Raises:
        UnknownEnvError: no such id or class; the message names the nearest one.
        ImportError: a module cannot be imported.
    """
    found = _find(env_id)
    if isinstance(found, type):
        return found
    entry: Any = load_env_creator(found.entry_point) if isinstance(found.entry_point, str) else found.entry_point
    if isinstance(entry, type) and issubclass(entry, Env):
        return entry
    env = make(env_id)  # its entry point is a function
    env.close()
    return type(env)


def _find(env_id: str) -> EnvSpec | type[Env]:
    if not isinstance(cast("object", env_id), str):
        msg = f"env_id must be text such as 'agentenv/MathVerifier-v0' or 'module:Class', got {env_id!r:.80}"
        raise TypeError(msg)
    module, colon, name = env_id.rpartition(":")
    if not colon:
        return _find_registered(env_id)
    imported = import_named(module, name)
    found = getattr(imported, name, None)
    if isinstance(found, type) and issubclass(found, Env):
        return found
    if found is not None:
        msg = f"no environment {env_id!r}: {name} is no class derived from agentenv.Env in {module}"
        raise UnknownEnvError(msg)
    try:
        return _find_registered(name)
    except UnknownEnvError as error:
        msg = f"no environment {env_id!r}: there is no such name in {module}, and {error}"
        raise UnknownEnvError(msg) from error


def _find_registered(env_id: str) -> EnvSpec:
    if env_id in registry:
        return registry[env_id]
    newest = sorted(
        (known for known in registry if known.rpartition("-v")[0] == env_id),
        key=lambda known: int(known.rsplit("-v", 1)[1]),
    )
    if newest:
        return registry[newest[-1]]
    names = {known.lower(): known for known in env_ids()}
    names |= {known.lower().rpartition("/")[2]: known for known in env_ids()}
    close = difflib.get_close_matches(env_id.lower(), names, n=1, cutoff=0.4)
    hint = f" Did you mean {names[close[0]]!r}?" if close else ""
    msg = f"no environment {env_id!r}.{hint} Known: {', '.join(env_ids())}"
    raise UnknownEnvError(msg)


def import_named(module: str, name: str) -> ModuleType:
    """Imports the module of `module:name`.

    Raises:
        ImportError: it cannot be imported, or is the path of a file; the message says what to write instead.
    """
    is_file = module.endswith(".py") and Path(module).is_file()
    if not is_file and not re.search(r"^\.|[/\\]", module):
        return importlib.import_module(module)
    path = Path(module)
    beside = path.is_absolute() or ".." in path.parts
    wanted = ".".join([*(() if beside else path.parent.parts), path.name.removesuffix(".py").lstrip(".")])
    where = f" in its folder, {str(path.parent)!r}" if beside else ""
    msg = f"a module is named as for import, and {module!r} is a path: write '{wanted}:{name}'{where}"
    raise ImportError(msg)


def likely_class(env_id: str) -> str | None:
    """Returns `my_env:MyEnv` for the id `my_env/MyEnv-v0` (or `my_env.MyEnv`) where there is a module `my_env` here.

    Nothing is imported to find out. Names of `agentenv/` are ids, and no classes of its package.
    """
    said = re.fullmatch(r"(\w+(?:\.\w+)*)[/.]([^\W\d]\w*?)(?:-v\d+)?", env_id)
    return f"{said[1]}:{said[2]}" if said and said[1] != "agentenv" and is_module(said[1]) else None


def is_module(name: str) -> bool:
    """Whether a module can be imported from the current folder or where packages are installed."""
    here = Path.cwd().joinpath(*name.split("."))
    if here.with_name(f"{here.name}.py").is_file() or (here / "__init__.py").is_file() or name in sys.modules:
        return True
    return "." not in name and name.isidentifier() and importlib.util.find_spec(name) is not None


def _register_bundled() -> None:
    for env_id, entry_point in BUNDLED.items():
        register(env_id, entry_point)


_register_bundled()
