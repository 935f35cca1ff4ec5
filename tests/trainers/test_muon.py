"""Muon in float32 takes the steps of torch's own, but for the rounding of bfloat16."""

import pytest
import torch
from tiny_chat import random_model

from agentenv.trainers import muon
from agentenv.trainers.muon import Muon32, muon_for

SHAPES = [(6, 6), (8, 3), (3, 8), (6, 6), (1, 5), (16, 12)]


def stepped(kind, steps=12, **options):
    """Matrices after some steps down a quadratic, whose gradients turn from step to step."""
    torch.manual_seed(3)
    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    aims = [torch.randn(shape) for shape in SHAPES]
    optimizer = kind(matrices, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        for one, aim in list(zip(matrices, aims, strict=True))[:-1]:
            ((one - aim) ** 2).sum().backward()
        optimizer.step()
    return [one.detach() for one in matrices]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.005, "momentum": 0.9, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
        {"lr": 0.02, "adjust_lr_fn": "original"},
        {"lr": 0.02, "nesterov": False, "weight_decay": 0.3, "ns_steps": 3},
        {"lr": 0.02, "momentum": 0.0, "ns_coefficients": (3.0, -3.2, 1.2)},
    ],
)
def test_it_steps_as_torchs_own(options):
    begun = stepped(Muon32, 0, **options)
    for ours, theirs, start in zip(
        stepped(Muon32, **options), stepped(torch.optim.Muon, **options), begun, strict=True
    ):
        assert (ours - theirs).norm() <= 0.03 * (theirs - start).norm()
    assert torch.equal(stepped(Muon32, **options)[-1], begun[-1])  # which had no gradient


def test_updates_are_nearly_orthogonal():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(10, 4) @ torch.diag(torch.tensor([100.0, 10.0, 1.0, 0.1])))
    optimizer = Muon32([matrix], lr=1.0, momentum=0.0, weight_decay=0.0, ns_steps=12)
    matrix.grad = matrix.detach().clone()
    before = matrix.detach().clone()
    optimizer.step()
    values = torch.linalg.svdvals((before - matrix.detach()) / (10 / 4) ** 0.5)
    assert ((values > 0.6) & (values < 1.3)).all(), values


def test_its_state_is_saved_and_restored():
    matrix = torch.nn.Parameter(torch.eye(3))
    one = Muon32([matrix], lr=0.1)
    matrix.grad = torch.ones(3, 3)
    assert one.step(lambda: 7.0) == 7.0
    other = Muon32([matrix], lr=0.1)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.state[matrix]["momentum_buffer"], torch.full((3, 3), 0.05))


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, torch.optim.Muon), (False, Muon32)])
def test_torchs_own_is_taken_where_the_processor_has_bfloat16(monkeypatch, bfloat16, expected):
    monkeypatch.setattr(muon.torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16)
    model, _ = random_model()
    assert muon_for(model) is expected
    assert muon_for(torch.nn.Linear(2, 2, device="meta")) is torch.optim.Muon
