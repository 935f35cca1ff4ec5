"""Models with random weights, engines and servers of vLLM that serve them, and what transformers says to the same ids.

`AGENTENV_VLLM_MODEL=100M` makes the models 150 million parameters large, for a GPU.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import torch
from tiny_chat import CONVERSATIONS, answer

from agentenv.protocols import Context
from agentenv.trainers.tiny import make_tiny_model

SIZES = {"tiny": (64, 2, 2), "100M": (1024, 12, 16)}
WIDTH, LAYERS, HEADS = SIZES[os.environ.get("AGENTENV_VLLM_MODEL", "tiny")]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONTEXT = 1024
_CPU: dict[str, Any] = {"block_size": 32, "kv_cache_memory_bytes": 128 << 20, "enable_chunked_prefill": False}
OPTIONS: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 64, "seed": 0}
OPTIONS.update(_CPU if DEVICE == "cpu" else {})
"""Small blocks: what does not fill one is not cached."""


def make_model(seed: int = 0, *, tied: bool = True, context: int = CONTEXT) -> tuple[Any, Any]:
    """A model whose distributions are far from uniform and often end a message; and its tokenizer."""
    made = make_tiny_model(CONVERSATIONS, hidden_size=WIDTH, num_layers=LAYERS, num_heads=HEADS, context_length=context)
    model, tokenizer = cast("Any", made[0]), cast("Any", made[1])
    generator = torch.Generator().manual_seed(seed)
    if not tied:
        model.config.tie_word_embeddings = False
        model = type(model)(model.config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(float(parameter.ndim == 1) + noise * 1.2 / WIDTH**0.5)
        model.get_output_embeddings().weight[tokenizer.eos_token_id] += 0.35 * (8 / WIDTH**0.5)
    return model.eval().to(DEVICE), tokenizer


def save_model(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Writes both."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def roots(count: int, per_task: int = 4) -> list[Context]:
    return [Context((CONVERSATIONS[i // per_task][0],), seed=1000 + i) for i in range(count)]


def next_turn(contexts: Sequence[Context], actions: Sequence[Any], number: int = 0, words: int = 3) -> list[Context]:
    """What a rollout would show the agent after its actions; answers of several lengths."""
    out: list[Context] = []
    for i, (context, action) in enumerate(zip(contexts, actions, strict=True)):
        messages = (*context.messages, action.to_message())
        ids = action.prompt_token_ids + action.token_ids
        reply = answer("7 " * (words + (i + number) % 5))
        out.append(Context((*messages, reply), (), ids, len(messages), context.seed * 31 + number))
    return out


def logprobs_of(model: Any, action: Any, temperature: float = 1.0) -> list[float]:
    """Log-probabilities by one plain forward over the whole sequence."""
    ids = [*action.prompt_token_ids, *action.token_ids]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].double()
    logprobs = torch.log_softmax(logits / temperature, -1)
    start = len(action.prompt_token_ids) - 1
    return [logprobs[start + t, token].item() for t, token in enumerate(action.token_ids)]


def largest_difference(model: Any, actions: Sequence[Any], temperature: float = 1.0) -> float:
    """The largest difference between log-probabilities of actions and those of transformers."""
    pairs = [(a.logprobs, logprobs_of(model, a, temperature)) for a in actions]
    return max(abs(ours - theirs) for both in pairs for ours, theirs in zip(*both, strict=True))


class ServerProcess:
    """A vLLM server on this machine, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, log: Path, *words: str, dev: bool = True) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._dev = dev
        options = {key: value for key, value in OPTIONS.items() if not isinstance(value, bool)}
        self._command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager"]
        self._command += [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        self._command += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *words]
        if DEVICE == "cpu":
            self._command.append("--no-enable-chunked-prefill")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 400) -> None:
        """Starts it and waits until it answers."""
        environment = os.environ | ({"VLLM_SERVER_DEV_MODE": "1"} if self._dev else {})
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), urlopen(f"{self.url}/health", timeout=5) as answered:
                if answered.status == 200:
                    return
            time.sleep(0.2)
        tail = self._log.read_text(errors="replace")[-3000:]
        self.kill()
        message = f"the server did not start: {tail}"
        raise RuntimeError(message)

    def kill(self) -> None:
        """Kills it and all that it started: a killed server would leave its engine running."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def watch(run: Any) -> tuple[list[Any], list[set[Any]]]:
    """Records the importance ratios of all sampled tokens, by a plain forward pass, and the versions of the weights."""
    grow, ratios, versions = run._grow, list[Any](), list[set[Any]]()

    def remember(numbers: Any, mode: str) -> Any:
        trees = grow(numbers, mode)
        sampled = [(tree, i) for tree in trees for i in range(1, len(tree))]
        versions.append({tree.nodes[i].action.weight_version for tree, i in sampled})
        for tree, i in sampled:
            ids, action = list(tree.token_ids(i)), tree.nodes[i].action
            with torch.no_grad():
                logits = run.model(input_ids=torch.tensor([ids], device=run.model.device)).logits[0].float()
            places = list(range(len(ids) - len(action.token_ids) - 1, len(ids) - 1))
            trained = torch.log_softmax(logits, -1)[places, list(action.token_ids)]
            ratios.append((trained - torch.tensor(action.logprobs, device=trained.device)).exp())
        return trees

    run._grow = remember
    return ratios, versions
