"""Every recipe runs: the same file, with a tiny model and small amounts."""

from pathlib import Path

import pytest
from cli_runs import run

pytestmark = [pytest.mark.model, pytest.mark.slow]

RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.yaml"))
SMALL = ["--steps", 1, "--tasks-per-step", 2, "--tasks", 4, "--eval-tasks", 2, "--every", 1, "--max-action-tokens", 4,
         "--learning-rate", 1e-3]  # fmt: skip


@pytest.fixture
def model(here):
    from tiny_chat import tiny

    model, tokenizer = tiny()
    model.save_pretrained(here / "model")
    tokenizer.save_pretrained(here / "model")
    return here / "model"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(recipe, here, model):
    little = [*SMALL, "--option", "max_steps=2"]
    if "sr_ppo" not in recipe.stem:
        little += ["--rollouts", 2]
    else:
        little += ["--set", "critic_warmup=0"]
    words = ["train", recipe, "--model", model, *little, "--run-folder", here / "run"]
    planned = run(*words, "--dry-run")
    assert planned.exit_code == 0 and not (here / "run").exists(), planned.stderr
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    assert (here / "run" / "checkpoint-1").is_dir()


def test_there_are_recipes():
    assert len(RECIPES) >= 6
