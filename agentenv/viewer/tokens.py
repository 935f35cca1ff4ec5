"""The texts of tokens, where a run has a tokenizer at hand."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["find_tokenizer", "token_texts"]


def find_tokenizer(folder: Path) -> Path | None:
    """Returns the tokenizer of a run: that of its newest checkpoint; `None` where there is none."""
    found = [path for path in folder.glob("checkpoint-*/tokenizer.json") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def token_texts(path: Path | None) -> Callable[[int], str] | None:
    """Returns what gives the text of a token id; `None` without a tokenizer, or without the package `tokenizers`.

    A token that is part of a character (byte-level vocabularies have such) shows as the replacement character.

    Args:
        path: a `tokenizer.json`, or a folder that holds one.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer  # comes with transformers
    except ImportError:
        return None
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises nothing more specific
        msg = f"{file} is no tokenizer.json that can be read: {error}"
        raise ValueError(msg) from error

    @cache
    def text_of(token: int) -> str:
        return tokenizer.decode([token], skip_special_tokens=False)

    return text_of
