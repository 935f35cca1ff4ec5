"""New weights for an engine: checked before the first one is replaced, with what tied embeddings need.

An engine whose reload broke off answers nothing, or nonsense, from then on. So names and shapes are compared first with
those of the folder that the engine was made from.
"""

import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentenv.errors import ModelError

__all__ = ["Given", "Shapes", "Weights", "check_weights", "given_weights", "read_shapes", "staged", "with_head"]

Weights = Mapping[str, Any]
"""Names, as in the files of a model, and tensors."""
Shapes = Mapping[str, tuple[int, ...]]
Given = str | Path | Iterable[tuple[str, Any]]
"""A folder, or pairs of names and tensors."""

_HEAD = "lm_head.weight"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
"""How the names of embeddings end: Llama and most others, GPT-2, Bloom and Falcon, GPT-NeoX."""


def read_shapes(folder: str | Path) -> Shapes:
    """Returns names and shapes of the weights in a folder, read from the heads of its files.

    Raises:
        ModelError: it is no folder, or holds no `*.safetensors`.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in _files(folder):
        with safe_open(file, "np") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return shapes


def given_weights(weights: Given) -> tuple[Path | Weights, Shapes]:
    """Returns a folder, or what an iterator of names and tensors gives, without their gradients; and the shapes.

    Raises:
        ModelError: it is something else, or holds nothing.
    """
    if isinstance(weights, str | Path):
        return Path(weights), read_shapes(weights)
    found: dict[str, Any] = {}
    for pair in weights:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and hasattr(pair[1], "shape")):
            msg = (
                f"weights must be a folder, or pairs of a name and a tensor such as model.state_dict().items(), got "
                f"an entry {pair!r:.80}"
            )
            raise ModelError(msg)
        found[pair[0]] = pair[1].detach()
    if not found:
        msg = "weights must give at least one tensor, got none: an iterator can be read only once"
        raise ModelError(msg)
    return found, {name: tuple(tensor.shape) for name, tensor in found.items()}


def check_weights(found: Shapes, expected: Shapes, *, tied: bool) -> None:
    """Refuses weights that are not those of the engine's model, name by name and shape by shape.

    Args:
        found: of the new weights.
        expected: of the folder that the engine was made from.
        tied: whether the output layer is the embedding, so that either may come without or with it.

    Raises:
        ModelError: the message lists what is missing, unknown or of another shape.
    """
    free = {_HEAD} if tied else set[str]()
    missing = sorted(expected.keys() - found.keys() - free)
    unknown = sorted(found.keys() - expected.keys() - free)
    other = [
        f"{name} {list(found[name])}, not {list(expected[name])}"
        for name in sorted(found.keys() & expected.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    problems = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("lacks", missing), ("has unknown", unknown), ("has shapes", other))
        if names
    ]
    if problems:
        msg = (
            f"weights must be all weights of the engine's model, by the names of its files; this {'; '.join(problems)}:"
            " merge adapters first, and strip what a wrapper puts before the names"
        )
        raise ModelError(msg)


def with_head(weights: Weights, *, tied: bool) -> Weights:
    """Adds the output layer of a model whose embedding is tied to it.

    An engine keeps the two apart where its kernels want the output layer in another layout: on a CPU the layer would
    silently keep the old weights.

    Raises:
        ModelError: the model is tied, and it is not clear which weight is the embedding.
    """
    if not tied or _HEAD in weights:
        return weights
    return {**weights, _HEAD: weights[_embedding(weights)]}


@contextmanager
def staged(weights: Weights | Path, *, tied: bool, place: Path | None) -> Generator[Path]:
    """Gives a folder with weights for an engine in another process, which is removed afterwards.

    Args:
        weights: tensors; or a folder, which is given as it is, or linked beside its output layer where that is tied.
        tied: as for `with_head`.
        place: where the folder is made, which the engine must see at the same path; the folder of temporary files by
            default.
    """
    if isinstance(weights, Path) and (not tied or _HEAD in read_shapes(weights)):
        yield weights.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="agentenv-weights-", dir=place) as name:
        folder = Path(name)
        folder.chmod(0o755)
        _stage(weights, folder, tied=tied)
        yield folder


def _stage(weights: Weights | Path, folder: Path, *, tied: bool) -> None:
    from safetensors.torch import save_file

    if not isinstance(weights, Path):
        whole: dict[str, Any] = {}
        seen: set[int] = set()
        for name, tensor in with_head(weights, tied=tied).items():
            kept = tensor.contiguous().cpu()
            memory = kept.untyped_storage().data_ptr()
            whole[name] = kept.clone() if memory in seen else kept  # files do not hold shared memory
            seen.add(memory)
        save_file(whole, folder / "model.safetensors", {"format": "pt"})
        return
    shapes = read_shapes(weights)
    name = _embedding(shapes)
    for file in _files(weights):  # no index: it would hide the file that is added
        (folder / file.name).symlink_to(file.resolve())
        tensor = _read_one(file, name)
        if tensor is not None:
            save_file({_HEAD: tensor}, folder / "tied-output-layer.safetensors", {"format": "pt"})


def _read_one(file: Path, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.get_tensor(name) if name in opened.keys() else None  # noqa: SIM118


def _files(folder: str | Path) -> list[Path]:
    path = Path(folder)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        held = sorted(file.name for file in path.iterdir())[:8] if path.is_dir() else "no folder"
        msg = (
            f"weights must be a folder with *.safetensors, {str(folder)!r} holds {held}: write them with "
            "model.save_pretrained(folder)"
        )
        raise ModelError(msg)
    return files


def _embedding(names: Iterable[str]) -> str:
    found = [name for name in names if name.endswith(_EMBEDDINGS)]
    if len(found) != 1:
        msg = (
            f"weights of a model with tied embeddings must have one embedding (a name that ends with one of "
            f"{', '.join(_EMBEDDINGS)}), got {found}: add the output layer as {_HEAD!r}"
        )
        raise ModelError(msg)
    return found[0]
