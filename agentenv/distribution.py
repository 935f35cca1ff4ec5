"""What pip calls this package, and the shell commands that install what is missing."""

import importlib.util
import shlex
import sys
from pathlib import Path

__all__ = ["DISTRIBUTION", "EXTRA_OF", "install_extra", "install_module", "pip_install"]

DISTRIBUTION = "agentenv-rl"
"""The name in pip's world: `agentenv`, the name of the import and of the command, is somebody else's there."""

EXTRA_OF = {
    "accelerate": "train",
    "datasets": "train",
    "docker": "docker",
    "httpx2": "openai",
    "openai": "openai",
    "ray": "ray",
    "matplotlib": "train",
    "mcp": "mcp",
    "peft": "train",
    "sentence_transformers": "dense",
    "starlette": "proxy",
    "torch": "train",
    "transformers": "train",
    "trl": "train",
    "uvicorn": "proxy",
    "vllm": "vllm",
    "websockets": "openenv",
}
"""The extra of ours that brings a module."""

_ROOT = Path(__file__).resolve().parent.parent


def pip_install(*words: str) -> str:
    """Returns the command that has this very interpreter's environment install something, whichever one is active."""
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    return " ".join([pip, *(f"'{word}'" if set(word) & set("[]<>! ") else word for word in words)])


def install_extra(extra: str) -> str:
    """Returns what installs an extra: from the checkout where the code is in one, else by the distribution's name."""
    if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "constraints.txt").is_file():
        return pip_install("-c", str(_ROOT / "constraints.txt"), "-e", f"{_ROOT}[{extra}]")
    return pip_install(f"{DISTRIBUTION}[{extra}]")


def install_module(module: str) -> str:
    """Returns what installs a module that is missing: the extra that brings it, or the package of its name."""
    top = module.partition(".")[0]
    return install_extra(EXTRA_OF[top]) if top in EXTRA_OF else pip_install(top.replace("_", "-"))
