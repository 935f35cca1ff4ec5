"""Checks of what callers give to a sandbox, before anything is sent: a wrong argument must never reach the guest."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from agentenv.errors import UnusableText

__all__ = [
    "MAX_TIMEOUT_S",
    "as_bytes",
    "can_be_a_name",
    "checked_env",
    "checked_mode",
    "checked_path",
    "checked_patterns",
    "checked_timeout",
    "checked_words",
]

MAX_TIMEOUT_S = 7 * 86_400.0
"""The longest a command may run: a week."""

_BYTES: tuple[type, ...] = (bytes, bytearray, memoryview)


def as_bytes(name: str, value: object) -> bytes:
    """Returns a content as bytes; text as UTF-8.

    Args:
        name: of the argument, for the message.
        value: the content.

    Raises:
        TypeError: neither bytes nor text.
        UnusableText: no Unicode: a lone surrogate.
    """
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            msg = f"{name} has a lone surrogate at {error.start}, which UTF-8 cannot express: give bytes"
            raise UnusableText(msg) from error
    if isinstance(value, _BYTES):
        return bytes(cast("bytes", value))
    msg = f"{name} must be bytes or str, got {type(value).__name__}"
    raise TypeError(msg)


def checked_words(argv: Any) -> list[str]:
    """Returns the words of a command; text becomes one for `sh -c`.

    Raises:
        TypeError: no sequence of texts.
        UnusableText: no word at all, or one that no program can be given.
    """
    words: list[Any]
    if isinstance(argv, str):
        words = ["sh", "-c", argv]
    elif isinstance(argv, Iterable) and not isinstance(argv, _BYTES):
        words = list(cast("Iterable[Any]", argv))
    else:
        msg = f"argv must be a list of str, or str for sh, got {type(cast('object', argv)).__name__}"
        raise TypeError(msg)
    for index, word in enumerate(words):
        if not isinstance(word, str):
            msg = f"argv[{index}] must be str, got {word!r} ({type(word).__name__}): use str(...)"
            raise TypeError(msg)
    if not words or not all(_can_be_passed(word) for word in words):
        msg = f"argv needs at least a program, and no NUL or lone surrogate in any word, got {argv!r:.200}"
        raise UnusableText(msg)
    return words


def checked_env(name: str, env: object) -> dict[str, str]:
    """Returns environment variables.

    Raises:
        TypeError: no mapping from text to text.
        UnusableText: a variable that cannot be: an empty name, one with `=`, a NUL or a lone surrogate anywhere.
    """
    if not isinstance(env, Mapping):
        msg = f"{name} must be a mapping from str to str, got {type(env).__name__}"
        raise TypeError(msg)
    variables = dict(cast("Mapping[str, str]", env))
    for key, value in variables.items():
        if not isinstance(key, str) or not isinstance(value, str):
            msg = f"{name} must map str to str, got {key!r}: {value!r}: use str(...)"
            raise TypeError(msg)
        if not key or "=" in key or not _can_be_passed(key + value):
            msg = f"{name} has a variable that cannot be: {key!r}={value!r:.200}"
            raise UnusableText(msg)
    return variables


def checked_timeout(name: str, value: object) -> float:
    """Returns seconds, positive and at most a week.

    Raises:
        TypeError: no number.
        ValueError: out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number of seconds, got {value!r} ({type(value).__name__})"
        raise TypeError(msg)
    if not value > 0:
        msg = f"{name} must be positive, got {value!r}"
        raise ValueError(msg)
    if value > MAX_TIMEOUT_S:
        msg = f"{name} must be at most {MAX_TIMEOUT_S:.0f} seconds (a week), got {value!r}"
        raise ValueError(msg)
    return float(value)


def checked_path(name: str, value: object) -> str:
    """Returns a path as it is; whether there is such a file is the guest's to say.

    Raises:
        TypeError: no text.
    """
    if not isinstance(value, str):
        msg = f"{name} must be str, got {value!r} ({type(value).__name__}): use str(...)"
        raise TypeError(msg)
    return value


def can_be_a_name(path: str) -> bool:
    """Returns whether a file system can be asked for this path: no lone surrogate but those that stand for bytes."""
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def checked_mode(mode: object) -> int | None:
    """Returns permission bits, or `None`.

    Raises:
        TypeError: no integer.
        ValueError: out of range.
    """
    if mode is None:
        return None
    if isinstance(mode, bool) or not isinstance(mode, int):
        msg = f"mode must be an int like 0o755, got {mode!r} ({type(mode).__name__})"
        raise TypeError(msg)
    if not 0 <= mode <= 0o7777:
        msg = f"mode must be between 0 and 0o7777, got {mode:#o}"
        raise ValueError(msg)
    return mode


def checked_patterns(allow: object) -> list[str]:
    """Returns shell patterns.

    Raises:
        TypeError: no sequence of texts; one text alone is none.
    """
    patterns = (
        list(cast("Sequence[str]", allow)) if isinstance(allow, Sequence) and not isinstance(allow, str) else None
    )
    if patterns is None or not all(isinstance(pattern, str) for pattern in patterns):
        msg = f'allow must be a sequence of str like ["*.py"], got {allow!r}'
        raise TypeError(msg)
    return patterns


def _can_be_passed(word: str) -> bool:
    return "\0" not in word and can_be_a_name(word)
