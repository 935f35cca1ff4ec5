import pytest
from cli_runs import DICE


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder that holds dice_env.py."""
    (tmp_path / "dice_env.py").write_text(DICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path
