"""What a folder must hold to be a model."""

from pathlib import Path

from agentenv.errors import ModelError

__all__ = ["check_folder"]


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
