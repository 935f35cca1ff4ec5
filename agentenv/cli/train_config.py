"""The settings of `agentenv train` from a YAML file and from `--set`: names of options, and fields of the trainer's."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import typer

from agentenv.distribution import install_module

from .command_line import blame, refuse

__all__ = ["add_words", "read_config", "read_settings"]

_EXTRA, _WORDS = "agentenv.train.settings", "agentenv.train.words"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # 1e-5, which YAML takes for text
_NEVER = frozenset({"env_id", "resume", "override", "dry_run", "set_"})


def read_config(ctx: typer.Context, value: str) -> str:
    """Takes the defaults of the other options from a file, where the first argument names one; returns the environment.

    What is given on the command line goes before what the file says. Keys that are no option become settings of the
    trainer, which `read_settings` returns.

    Raises:
        typer.BadParameter: the file cannot be read, has no `env_id`, or a key that nothing has.
    """
    if not value.endswith((".yaml", ".yml")):
        return value
    content = _load(Path(value))
    options = {str(parameter.name): parameter for parameter in ctx.command.params}
    given: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, part in content.items():
        name = str(key).replace("-", "_")
        if name in given or name in rest:
            refuse("CONFIG.yaml", f"{value}: {name} is given twice: leave one out")
        if name in _NEVER - {"env_id"}:
            refuse("CONFIG.yaml", f"{value}: {key} belongs on the command line")
        if name in options:
            given[name] = _words(part) if getattr(options[name], "multiple", False) else _plain(part)
        elif name != "env_id":
            rest[name] = _number(part)
    if not isinstance(content.get("env_id"), str):
        keys = ", ".join(map(str, content)) or "none"
        refuse(
            "CONFIG.yaml", f"{value}: env_id must name an environment, got {content.get('env_id')!r}; its keys: {keys}"
        )
    ctx.default_map = given
    ctx.meta[_EXTRA], ctx.meta[_WORDS] = (value, rest), given
    return content["env_id"]


def add_words(ctx: typer.Context, name: str, words: Sequence[str] | None) -> list[str]:
    """Returns the `KEY=VALUE` words of an option, and those of the file whose keys the command line leaves alone."""
    given = list(words or ())
    keys = {word.partition("=")[0] for word in given}
    known = cast("Mapping[str, list[str]]", ctx.meta.get(_WORDS, {})).get(name, [])
    return [word for word in known if word.partition("=")[0] not in keys] + given


def read_settings(
    ctx: typer.Context, words: Sequence[str], config: type[Any], taken: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the settings of the trainer that a file or `--set` name.

    Args:
        ctx: of the command.
        words: `KEY=VALUE` of `--set`.
        config: the dataclass whose fields they are.
        taken: fields that have an option of their own, with its name.

    Raises:
        typer.BadParameter: a field that `config` does not have, or that has an option.
    """
    file, extra = cast("tuple[str, dict[str, Any]]", ctx.meta.get(_EXTRA, ("", {})))
    sources = [(name, value, f"{file}: ", "CONFIG.yaml") for name, value in extra.items()]
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            refuse("--set", f"must be KEY=VALUE, got {word!r}")
        sources.append((name.replace("-", "_"), _number(_parse(text)), "", "--set"))
    known = {field.name for field in fields(config) if field.init}
    settings: dict[str, Any] = {}
    for name, value, where, argument in sources:
        if option := taken.get(name):
            refuse(argument, f"{where}{name} is given by {option}")
        if name not in known:
            choices = [*known - set(taken), *(str(parameter.name) for parameter in ctx.command.params)]
            close = difflib.get_close_matches(name, choices, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            refuse(argument, f"{where}no option or field of {config.__name__} is named {name!r}{hint}")
        settings[name] = value
    return settings


def _load(path: Path) -> Mapping[Any, Any]:
    try:
        import yaml
    except ImportError:
        refuse("CONFIG.yaml", f"needs a reader of YAML: {install_module('yaml')}")
    with blame("CONFIG.yaml", OSError, UnicodeDecodeError, yaml.YAMLError):
        content = yaml.load(path.read_text(encoding="utf-8"), _strict(yaml))  # noqa: S506  it is a SafeLoader
    if not isinstance(content, Mapping):
        refuse("CONFIG.yaml", f"{path} must hold a mapping of names to values, got {content!r:.80}")
    return cast("Mapping[Any, Any]", content)


def _strict(yaml: Any) -> Any:
    """Returns YAML's safe loader, which refuses a key that is given twice instead of forgetting the first."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            for (key, _), name in zip(node.value, keys, strict=True):
                if keys.count(name) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", key.start_mark)
            return yaml.SafeLoader.construct_mapping(self, node, deep)

    return Loader


def _words(part: Any) -> list[str]:
    """`KEY=VALUE` words of a mapping, or a list of such words."""
    if isinstance(part, Mapping):
        pairs = cast("Mapping[Any, Any]", part).items()
        return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in pairs]
    return [str(word) for word in cast("Sequence[Any]", part)] if isinstance(part, list) else [str(part)]


def _plain(part: Any) -> Any:
    return _number(part) if not isinstance(part, Mapping | list) else str(cast("object", part))


def _number(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {key: _number(value) for key, value in cast("Mapping[Any, Any]", part).items()}
    if isinstance(part, list):
        return [_number(value) for value in cast("list[Any]", part)]
    return float(part) if isinstance(part, str) and _NUMBER.fullmatch(part) else part


def _parse(text: str) -> Any:
    """A value of the command line: JSON, or else text."""
    try:
        return json.loads(text)
    except ValueError:
        return {"true": True, "false": False, "none": None, "null": None}.get(text.lower(), text)
