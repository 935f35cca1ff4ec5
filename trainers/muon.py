"""Muon in float32, for processors that have no bfloat16."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from typing_extensions import override

__all__ = ["Muon32", "muon_for"]


class Muon32(torch.optim.Muon):
    """`torch.optim.Muon`, but that updates are made orthogonal in float32, all matrices of one shape at a time.

    torch does it in bfloat16, one matrix after the other. A processor without instructions for bfloat16 takes 10 to 28
    times longer for that than for float32, so that a model of a few hundred thousand weights takes minutes to learn
    what it could in seconds. Both give the same update but for the rounding of bfloat16: a relative error of about
    2^-8 per product.

    Source: Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"; `adjust_lr_fn` as in torch.
    """

    @torch.no_grad()
    @override
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step; returns what `closure` returns, which computes the loss anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                rate = group["lr"] * _rate_of(shape, group["adjust_lr_fn"])
                updates = _orthogonal(torch.stack([self._momentum(one, group) for one in matrices]), group)
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)
        return loss

    def _momentum(self, matrix: torch.Tensor, group: Mapping[str, Any]) -> torch.Tensor:
        """Adds a gradient to its running mean; returns what to step along."""
        assert matrix.grad is not None
        state: dict[str, torch.Tensor] = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean = state["momentum_buffer"]
        mean.lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean


def muon_for(model: torch.nn.Module) -> type[torch.optim.Muon]:
    """Returns which Muon is fast where a model lies: torch's own, or `Muon32` on a processor without bfloat16."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return Muon32 if on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.optim.Muon


def _orthogonal(matrices: torch.Tensor, group: Mapping[str, Any]) -> torch.Tensor:
    """Brings the singular values of matrices, shape (count, rows, columns), near 1, by Newton-Schulz iterations."""
    a, b, c = group["ns_coefficients"]
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.float().mT if tall else matrices.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _rate_of(shape: torch.Size, rule: str | None) -> float:
    """Returns what the learning rate of a matrix is multiplied by."""
    rows, columns = shape
    return 0.2 * max(rows, columns) ** 0.5 if rule == "match_rms_adamw" else max(1, rows / columns) ** 0.5
