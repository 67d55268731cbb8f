import pytest

from vaultlab import places


@pytest.fixture
def vault(tmp_path, monkeypatch):
    """An empty vault, and state kept beside it."""
    monkeypatch.setattr(places, "state_dir", lambda: tmp_path / "state")
    root = tmp_path / "vault"
    root.mkdir()
    return root
