"""What a model's folder holds, beside its weights."""

from pathlib import Path
from typing import cast

from transformers import GenerationConfig

from agentenv.errors import ModelError

__all__ = ["check_folder", "generation_stops"]


def check_folder(folder: str | Path) -> None:
    """Says what is missing in a folder on disk; a name on the hub passes.

    transformers says it at length, and makes an empty tokenizer of a configuration alone.

    Raises:
        ModelError: there is no model in it, or no tokenizer.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    names = sorted(path.name for path in folder.iterdir())
    if not (folder / "config.json").is_file():
        msg = f"folder must hold a model (config.json and weights), {str(folder)!r} holds {names}"
        raise ModelError(msg)
    if not {"tokenizer.json", "tokenizer_config.json", "tokenizer.model"} & set(names):
        msg = (
            f"folder must hold a tokenizer (tokenizer.json), {str(folder)!r} holds {names}: "
            "write it there with tokenizer.save_pretrained(folder)"
        )
        raise ModelError(msg)


def generation_stops(root: str) -> tuple[int, ...]:
    """Returns the end tokens of the model's generation config, where it is on this machine."""
    try:
        stops: object = GenerationConfig.from_pretrained(root, local_files_only=True).eos_token_id
    except (OSError, ValueError):
        return ()
    return () if stops is None else (stops,) if isinstance(stops, int) else tuple(cast("list[int]", stops))
