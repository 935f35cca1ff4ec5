"""Sizes of the models that play, and devices that they run on.

The larger ones have the proportions of Qwen3-1.7B: heads of 128, two of queries for one of keys and values, an MLP
three times as wide as the model, tied embeddings. Learning rates are those of the tiny model times the ratio of widths,
which is how AdamW's go over from one width to another (Yang et al., Tensor Programs V, 2203.03466).
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .names import named

__all__ = ["DEVICES", "SIZES", "Size", "device_name", "find_device", "size_of"]


@dataclass(frozen=True)
class Size:
    """The shape of a model.

    Attributes:
        hidden_size: width.
        num_layers: depth.
        num_heads: heads of queries.
        num_kv_heads: heads of keys and values.
        said: the count of parameters in words.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    said: str

    @property
    def shape(self) -> dict[str, Any]:
        """What `agentenv.trainers.make_tiny_model` is told."""
        return {
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
        }

    def rate(self, tiny: float) -> float:
        """Computes the learning rate of this width from one that is meant for the tiny model."""
        return tiny * SIZES["tiny"].hidden_size / self.hidden_size


SIZES = {
    "tiny": Size(128, 3, 4, 4, "0.7 million"),
    "20m": Size(512, 6, 4, 2, "20 million"),
    "100m": Size(768, 14, 6, 3, "100 million"),
}
"""All sizes, by name."""

DEVICES = ("cpu", "cuda")


def size_of(name: str) -> Size:
    """Returns a size by its name.

    Raises:
        ValueError: there is none of that name.
    """
    return named("size", SIZES, name)


def find_device(word: str) -> str:
    """Returns the device that is meant: `cpu`, `cuda`, or for `auto` a GPU where there is one.

    Raises:
        ValueError: there is none of that name, or `cuda` where torch finds no GPU.
    """
    if word not in (*DEVICES, "auto"):
        msg = f"device must be one of {', '.join((*DEVICES, 'auto'))}, got {word!r}"
        raise ValueError(msg)
    if word == "cpu":
        return word
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if word == "cuda":
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        msg = (
            f"device must be one that is here, got 'cuda', and torch {torch.__version__} ({built}) finds no GPU: use "
            "--device cpu, or a machine with an NVIDIA GPU, its driver, and a torch that is built for CUDA"
        )
        raise ValueError(msg)
    return "cpu"


def device_name(device: str) -> str:
    """Returns the name of the hardware that a device is: the GPU's, or the model of the CPU."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    listed: Any = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return next(filter(None, names), "") or platform.processor() or platform.machine()
