"""Long data URLs in messages, such as images: written once per file, and named by their digest."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, cast

__all__ = ["pack", "unpack"]

_SCHEME = "blob:sha256-"
_LEAST = 256
"""Characters from which on a data URL gets a line of its own."""


def pack(value: Any, store: Callable[[str, str], None]) -> Any:
    """Replaces every long data URL in JSON values by its digest; `store` is given digest and URL."""

    def short(text: str) -> str:
        if len(text) < _LEAST or not text.startswith("data:"):
            return text
        name = _SCHEME + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        store(name, text)
        return name

    return _map_urls(value, short)


def unpack(value: Any, blobs: Mapping[str, str]) -> Any:
    """Puts the data URLs back.

    Raises:
        KeyError: a blob is missing.
    """
    return _map_urls(value, lambda text: blobs[text] if text.startswith(_SCHEME) else text)


def _map_urls(value: Any, change: Callable[[str], str]) -> Any:
    """Changes the `url` texts of content parts, and leaves all other text alone."""
    if isinstance(value, list):
        return [_map_urls(entry, change) for entry in cast("list[Any]", value)]
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
        return {k: change(v) if k == "url" and isinstance(v, str) else _map_urls(v, change) for k, v in entries}
    return value
