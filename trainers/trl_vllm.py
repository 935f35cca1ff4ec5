"""Sampling with TRL's own vLLM (`use_vllm`): its engine in this process, or its server, and its way of sending weights.

TRL makes engine or client, and knows how to gather, merge and send the weights; `VLLMAgent` asks for tokens, request by
request, because trees ask for as many as they need.
"""

import importlib.util
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from typing import Any, Protocol

from trl import GRPOConfig
from trl.trainer.utils import get_config_model_id

from agentenv.agents import VLLMAgent
from agentenv.distribution import install_module

from .sampler_weights import kept_exactly, sampler_weights

__all__ = ["TrlSampling", "check_model", "check_vllm", "engine_of_trees", "server_url"]


class _Args(Protocol):
    use_vllm: bool
    vllm_mode: str
    vllm_server_base_url: str | None
    vllm_server_host: str
    vllm_server_port: int


_TRADES: dict[str, tuple[object, str]] = {
    "staleness": (0, "weights are sent into the engine while it stands still; agent= samples ahead with another"),
    "predictor": ("text", "vLLM shows no hidden states"),
    "vllm_enable_sleep_mode": (False, "an engine that sleeps has no weights; lower vllm_gpu_memory_utilization"),
    "vllm_tensor_parallel_size": (
        1,
        "each process samples trees of its own, and those of one group would have to ask for the same; take "
        "vllm_mode='server', whose server may be spread",
    ),
}
"""What must have one value with vLLM, and why."""

_MODES = {
    "server": (
        "vllm_server_base_url",
        "vllm_server_host",
        "vllm_server_port",
        "vllm_server_timeout",
        "vllm_group_port",
    ),
    "colocate": ("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_model_impl"),
}


def check_vllm(args: Any) -> None:
    """Refuses settings of vLLM that would be ignored, and what cannot go with it.

    Raises:
        ValueError: the message names setting, rule, value and remedy.
    """
    if args.use_vllm and args.vllm_mode not in _MODES:
        msg = f"vllm_mode must be 'colocate' or 'server', got {args.vllm_mode!r}"
        raise ValueError(msg)
    for mode, names in _MODES.items():
        if not args.use_vllm or args.vllm_mode != mode:
            _check_defaults(args, names, f"it is for use_vllm=True with vllm_mode={mode!r}")
    if not args.use_vllm:
        _check_defaults(args, ("vllm_mode", *_TRADES.keys() - {"staleness", "predictor"}), "it is for use_vllm=True")
        return
    for name, (value, reason) in _TRADES.items():
        if getattr(args, name) != value:
            msg = f"{name} must be {value!r} with use_vllm=True, got {getattr(args, name)!r}: {reason}"
            raise ValueError(msg)


def _check_defaults(args: Any, names: tuple[str, ...], reason: str) -> None:
    known = {field.name: field.default for field in fields(GRPOConfig)}
    for name in names:
        if getattr(args, name) != known[name]:
            msg = f"{name} must be {known[name]!r}, got {getattr(args, name)!r}: {reason}"
            raise ValueError(msg)


def check_model(args: Any, model: Any, *, agent: object = None, adapter: object = None) -> None:
    """Refuses a model in memory whose files TRL wants, and what its vLLM cannot go with, before anything is made.

    Args:
        args: the trainer's settings.
        model: what is trained, or its name or folder; `None` where it is yet to be made.
        agent: what else was to sample.
        adapter: of the model, if only that is trained.

    Raises:
        ValueError: the message names setting, rule and remedy.
        ImportError: vLLM is not installed.
    """
    if args.use_vllm and agent is not None:
        msg = "agent must be left out with use_vllm=True: TRL's vLLM samples; or leave out use_vllm, and agent= does"
        raise ValueError(msg)
    wants = []
    if args.use_vllm and args.vllm_mode == "colocate":
        wants.append("use_vllm=True, which vLLM makes its engine of")
    if args.beta and adapter is None and not hasattr(model, "peft_config"):
        wants.append(f"beta={args.beta:g}, whose reference is read from there")
    if wants and not isinstance(model, str) and (model is None or not get_config_model_id(model.config)):
        msg = (
            f"model must come from a folder or the hub with {' and '.join(wants)}; this one was made in memory: "
            "save_pretrained it with its tokenizer, and load that"
        )
        raise ValueError(msg)
    if args.use_vllm and importlib.util.find_spec("vllm") is None:
        msg = f"use_vllm=True needs vllm: {install_module('vllm')}; or leave it out, and the model itself samples"
        raise ImportError(msg)


@contextmanager
def engine_of_trees(trainer: Any, args: Any) -> Generator[None]:
    """Has TRL make its engine in the precision of the training and wide enough for trees; it has no options for that.

    TRL's engine takes as many sequences at once as a batch has rows, which are tasks here and not episodes, and 16 bits
    where the weights have 32.

    Args:
        trainer: whose model the engine gets.
        args: its settings.
    """
    if not args.use_vllm or args.vllm_mode == "server":
        yield
        return
    module: Any = import_module("trl.generation.vllm_generation")
    make = module.LLM

    def make_wide(**given: Any) -> Any:
        return make(**{**given, **_engine_options(args, trainer.model.dtype)})

    module.LLM = make_wide
    try:
        yield
    finally:
        module.LLM = make


def _engine_options(args: Any, dtype: Any) -> Mapping[str, Any]:
    half = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    tasks = args.per_device_train_batch_size * args.steps_per_generation
    options: dict[str, Any] = {
        "dtype": half or str(dtype).removeprefix("torch."),
        "max_num_seqs": tasks * max(args.num_rollouts, args.num_continuations),
        "enable_prefix_caching": True,
    }
    platforms: Any = import_module("vllm.platforms")
    if platforms.current_platform.is_cpu():  # where a seed kills an engine that reads a prompt in pieces
        options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": None, "enforce_eager": True}
    return options


class TrlSampling:
    """What samples with TRL's vLLM: makes the agent, and sends it the weights.

    Args:
        generation: TRL's `VLLMGeneration`.
        accelerator: the trainer's; every process must call `send` at the same time.
        args: the trainer's settings.
    """

    def __init__(self, generation: Any, accelerator: Any, args: Any) -> None:
        self._generation = generation
        self._accelerator = accelerator
        self._args = args

    def make_agent(self, _: Any, tokenizer: Any) -> VLLMAgent:
        """Makes the agent on TRL's engine, or on its server."""
        args = self._args
        return VLLMAgent(
            self._generation.llm if args.vllm_mode == "colocate" else server_url(args),
            tokenizer,
            max_tokens=args.max_action_tokens,
            temperature=args.temperature,
            template_options=args.chat_template_kwargs or {},
            history=args.history,
        )

    def send(self, agent: VLLMAgent) -> None:
        """Sends the weights by TRL's own way, while nothing is sampled anywhere.

        An engine on a CPU has packed its weights away, where TRL's way finds no place to write to: it gets the same
        weights by `VLLMAgent.update_weights`. Adapters are merged either way; TRL takes them out again by arithmetic,
        which would round the weights below them a little each time.
        """
        generation, accelerator = self._generation, self._accelerator
        accelerator.wait_for_everyone()
        model = accelerator.unwrap_model(generation.model)
        if self._args.vllm_mode == "colocate":
            if _is_packed(generation.llm):
                agent.update_weights(sampler_weights(model))
            else:
                with kept_exactly(model):
                    agent.update_by(generation.sync_weights)
            return
        with kept_exactly(model):
            if accelerator.is_main_process:
                agent.update_by(generation.sync_weights)
            else:  # only takes part in gathering
                generation.sync_weights()
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            agent.weights_changed()
        accelerator.wait_for_everyone()


def server_url(args: _Args) -> str:
    """Returns where TRL looks for its server."""
    return args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"


def _is_packed(llm: Any) -> bool:
    model = llm.llm_engine.model_executor.driver_worker.model_runner.model
    return any(parameter.numel() == 0 for parameter in model.parameters())
