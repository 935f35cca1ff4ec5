"""Larger models and other devices: shapes, keys, the same path as the tiny model's, and what the page says of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentenv.trainers.tiny import make_tiny_model
from benchmarks.study.__main__ import main
from benchmarks.study.cells import Cell, Results
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.questions.question import Scale
from benchmarks.study.settings import SETTINGS, setting_of
from benchmarks.study.sizes import SIZES, device_name, find_device, size_of
from benchmarks.study.starts import recipe_of, start_of

pytestmark = pytest.mark.model
EXAMPLE: Any = [[{"role": "user", "content": "@ 0 1 $ 1 1 . 2 2"}, {"role": "assistant", "content": "down"}]]
KEPT = Cell(
    "credit", "decisive-hard", "all", 0, 0, 0.0, {"rollouts": 8192, "sizes": [4, 8, 16, 32, 64]}, "13dcfcddcea09af8"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, list[Cell]]:
    """Question 5 in little with a size that is small here, as `--size 20m` runs it; and its plan."""
    folder = tmp_path_factory.mktemp("sizes")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "20m", replace(SIZES["20m"], hidden_size=64, num_layers=1, num_heads=2, num_kv_heads=1))
        words = ["5", "--quick", "--seeds", "1", "--size", "20m", "--device", "cpu"]
        main([*words, "--folder", str(folder), "--starts", str(folder), "--docs", str(folder / "docs")])
        return folder, QUESTIONS[5].plan(Results(folder / "quick.jsonl"), Scale(1, quick=True, size="20m"))


@pytest.mark.parametrize(("name", "millions"), [("20m", 20), ("100m", 100)])
def test_a_size_has_about_as_many_parameters_as_its_name_says(name, millions):
    one = size_of(name)
    with torch.device("meta"):
        config = Qwen3Config(
            vocab_size=768,
            hidden_size=one.hidden_size,
            intermediate_size=3 * one.hidden_size,
            num_hidden_layers=one.num_layers,
            num_attention_heads=one.num_heads,
            num_key_value_heads=one.num_kv_heads,
            head_dim=one.hidden_size // one.num_heads,
            tie_word_embeddings=True,
        )
        count = Qwen3ForCausalLM(config).num_parameters()
    assert count == pytest.approx(millions * 1e6, rel=0.1)
    assert one.said.startswith(f"{millions} ")


def test_a_start_has_the_shape_of_its_size_and_shares_keys_between_heads():
    wide = replace(SIZES["20m"], num_layers=1)
    model, tokenizer = cast("tuple[Any, Any]", make_tiny_model(EXAMPLE, **wide.shape))
    assert (model.config.hidden_size, model.config.head_dim) == (512, 128)
    assert model.model.layers[0].self_attn.k_proj.out_features == 2 * 128
    assert len(tokenizer) <= 768
    plain, _ = make_tiny_model(EXAMPLE)
    named, _ = make_tiny_model(EXAMPLE, **SIZES["tiny"].shape)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), named.parameters(), strict=True))


def test_the_keys_of_what_was_run_before_sizes_are_as_they_were():
    assert KEPT.key == "15c659f6a68169ff"  # of benchmarks/study/results
    others = [replace(KEPT, size="20m"), replace(KEPT, device="cuda"), replace(KEPT, size="20m", device="cuda")]
    assert len({KEPT.key, *(cell.key for cell in others)}) == 4


def test_a_start_is_of_its_size_and_a_table_has_none():
    math, table = SETTINGS["math"], SETTINGS["decisive"]
    assert recipe_of(math) == recipe_of(math, "tiny")
    assert len({recipe_of(math, name) for name in SIZES}) == len(SIZES)
    assert recipe_of(table, "20m") == recipe_of(table)


def test_other_sizes_are_run_where_a_model_plays_with_rates_of_their_width_and_all_seeds():
    scale = Scale(20, size="20m", device="cuda")
    for number in (1, 2, 4, 5):
        cells = QUESTIONS[number].plan(Results(Path("nothing.jsonl")), scale)
        assert cells
        assert all(SETTINGS[cell.setting].plays for cell in cells)
        assert {(cell.size, cell.device) for cell in cells} == {("20m", "cuda")}
        assert {cell.start for cell in cells} == {recipe_of(SETTINGS[cell.setting], "20m") for cell in cells}
    assert scale.seeds_of(SETTINGS["math"]) == 20
    assert Scale(20).seeds_of(SETTINGS["math"]) == 5
    assert Scale(20).seeds_of(SETTINGS["math-hard"]) == 20
    assert scale.rates_of(SETTINGS["math"]) == pytest.approx([7.5e-5, 1.5e-4, 3e-4])
    assert Scale().rates_of(SETTINGS["math"]) == SETTINGS["math"].rates


def test_a_larger_model_takes_the_path_of_the_tiny_one(run):
    folder, cells = run
    results = Results(folder / "quick.jsonl")
    found = results.of(cells)
    assert [cell.setting for cell, _ in found] == ["sokoban", "sokoban"]
    for cell, entry in found:
        assert entry["ledger"]["tokens_sampled"] >= cell.tokens
        assert (entry["size"], entry["device"], entry["machine"]) == ("20m", "cpu", device_name("cpu"))
    assert len(results) == 2  # no table
    assert results.of(QUESTIONS[5].plan(results, Scale(1, quick=True))) == []
    assert results.elsewhere() == [("20m", "cpu")]


def test_the_page_tells_sizes_apart_and_names_device_and_command(run):
    folder, _ = run
    page = (folder / "docs" / "study.md").read_text()
    fifth = page.split("\n## 5. ")[1].split("\n## ")[0]
    assert "**Not run yet.**" in fifth.split("\n### ")[0]  # with the tiny model
    section = fifth.split(f"\n### With 20 million parameters on {device_name('cpu')}\n")[1]
    assert "python -m benchmarks.study 5 report --size 20m --device cpu  # first runs what is left\n" in section
    assert "**sokoban** (start" in section
    assert (folder / "docs/images/study/question_5_20m_cpu_curves.svg").is_file()
    for number in (2, 4, 5):  # a CPU's numbers are not a GPU's
        for name in ("20m", "100m"):
            assert f"python -m benchmarks.study {number} report --size {name} --device cuda --seeds 20\n" in page


def test_a_plan_needs_no_device(tmp_path, capsys):
    main(
        ["5", "1", "--quick", "--size", "100m", "--device", "cuda", "--seeds", "1", "--plan", "--folder", str(tmp_path)]
    )
    said = capsys.readouterr().out
    assert "tables have no size" in said
    assert "question 5: 0 of 2 runs done, the rest" in said
    assert "question 1: 0 of 1 runs done, the rest" in said


def test_a_device_that_is_not_here_is_refused_with_the_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(["5", "--quick", "--size", "20m", "--device", "cuda", "--folder", str(tmp_path)])
    assert "finds no GPU: use --device cpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert find_device("auto") == "cpu"
    for make in (find_device, size_of):
        with pytest.raises(ValueError, match="must be one of"):
            make("tpu")


@pytest.mark.parametrize("name", ["decisive", "sokoban"])
def test_a_start_is_put_on_the_device_that_is_asked_for(name, tmp_path, monkeypatch):
    """The device without memory stands for one that is not the CPU: what is made stays on it."""
    setting = setting_of(name, quick=True)
    setting = replace(setting, plays=tuple(replace(play, updates=1) for play in setting.plays))
    one = replace(SIZES["20m"], hidden_size=32, num_layers=1, num_heads=1, num_kv_heads=1)
    monkeypatch.setitem(SIZES, "20m", one)
    start_of(setting, tmp_path, size="20m")
    model, _ = start_of(setting, tmp_path, size="20m", device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
