"""Configuration: a vault may grant nothing, and one wrong line costs only itself."""

import json

import pytest

from vaultlab.errors import NoteError
from vaultlab.result import Limits
from vaultlab.vault.config import Config, Locked, load, read_lock, write_lock


@pytest.fixture
def owner(tmp_path):
    folder = tmp_path / "owner"
    folder.mkdir()
    return folder


def in_vault(vault, text):
    (vault / ".vaultlab").mkdir()
    (vault / ".vaultlab/config.toml").write_text(text, encoding="utf-8")


def test_nothing_configured(vault, owner):
    config = load(vault, owner)
    assert config.folder == "vaultlab"
    assert (config.limits, config.models, config.problems) == (Limits(), None, ())
    assert not config.ignored("anything.md")
    assert load(vault, owner / "not there").problems == ()


def test_what_a_vault_may_say(vault, owner):
    in_vault(vault, 'folder = "Lab/results"\n[defaults]\nmodel = "smollm2-135m"\nlayers = [1, 2]\n')
    config = load(vault, owner)
    assert config.folder == "Lab/results"
    assert config.defaults == {"model": "smollm2-135m", "layers": [1, 2]}
    assert config.problems == ()


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("models", 'models = ["evil/model"]'),
        ("device", 'device = "cuda"'),
        ("templates", 'templates = "/tmp"'),
        ("search", 'search = ["**"]'),
        ("limits", "[limits]\ntime_s = 1e9"),
        ("texts", '[texts]\nsecrets = "/etc/passwd"'),
        ("workers", '[workers.box]\ncommand = ["sh", "-c", "true"]'),
    ],
)
def test_a_vault_may_grant_nothing(vault, owner, key, line):
    in_vault(vault, f'folder = "Lab"\n{line}\n')
    config = load(vault, owner)
    (problem,) = config.problems
    assert f"`{key}`" in problem
    assert "owner" in problem
    assert config == Config(folder="Lab", ignored=config.ignored, problems=(problem,))


@pytest.mark.parametrize(
    "folder",
    [
        "",
        " ",
        ".",
        "..",
        "../beside",
        "a/../..",
        "/abs",
        "C:/x",
        "a\\b",
        ".hidden",
        "a/.b",
        "a//b",
        "a/",
        "a#b",
        "a|b",
        "[[a]]",
        "a^b",
        "new\nline",
        " a",
        "a /b",
    ],
)
def test_the_results_folder_stays_in_the_vault(vault, owner, folder):
    in_vault(vault, f"folder = {json.dumps(folder)}\n[defaults]\nseeds = 4\n")
    config = load(vault, owner)
    assert config.folder == "vaultlab"
    assert len(config.problems) == 1
    assert config.defaults == {"seeds": 4}


def test_one_wrong_line_costs_only_itself(vault, owner):
    in_vault(vault, 'flder = "x"\n[defaults]\nseeds = 4\nwhen = 2024-01-01\ndeep = {a = 1}\n')
    config = load(vault, owner)
    assert config.defaults == {"seeds": 4}
    said = " ".join(config.problems)
    assert len(config.problems) == 3
    for part in ("did you mean `folder`", "`defaults.when`", "`defaults.deep`"):
        assert part in said


@pytest.mark.parametrize("text", ["folder = ", "\0", "a = 1\na = 2"])
def test_a_file_that_is_no_toml(vault, owner, text):
    in_vault(vault, text)
    (owner / "config.toml").write_text(text)
    config = load(vault, owner)
    assert len(config.problems) == 2
    assert all("could not be read" in problem for problem in config.problems)


def test_a_configuration_behind_a_link_out_of_the_vault(vault, owner, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config.toml").write_text('folder = "x"')
    (vault / ".vaultlab").symlink_to(tmp_path / "elsewhere")
    config = load(vault, owner)
    assert config.folder == "vaultlab"
    assert "out of the vault" in config.problems[0]


@pytest.mark.parametrize("folder", ["vaultlab", "Lab/results"])
def test_a_results_folder_behind_a_link_out_of_the_vault(vault, owner, tmp_path, folder):
    """There is nowhere to write then, so nothing is written."""
    if folder != "vaultlab":
        in_vault(vault, f'folder = "{folder}"')
    (tmp_path / "elsewhere/results").mkdir(parents=True)
    (vault / folder.split("/")[0]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoteError, match="out of the vault"):
        load(vault, owner)


def test_what_the_owner_says(vault, owner, tmp_path):
    (owner / "config.toml").write_text(
        'device = "cuda"\nmodels = ["a", "org/b"]\nsearch = ["Ideas/**"]\ntemplates = "mine"\n'
        "[limits]\ntime_s = 60\nmemory_bytes = 1000\npoints = 9\n"
        f'[texts]\nmoby = "{tmp_path}/moby.txt"\nnear = "near.txt"\n'
        '[workers.box]\ncommand = ["ssh", "box", "vaultlab-worker"]\n'
    )
    config = load(vault, owner)
    assert config.limits == Limits(60.0, 1000, 9)
    assert isinstance(config.limits.time_s, float)
    assert (config.device, config.models, config.search) == ("cuda", ("a", "org/b"), ("Ideas/**",))
    assert config.templates == owner / "mine"
    assert config.texts == {"moby": tmp_path / "moby.txt", "near": owner / "near.txt"}
    assert config.workers == {"box": ("ssh", "box", "vaultlab-worker")}
    assert config.problems == ()


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("device = 3", "`device = 3` is not of the right kind"),
        ('models = "a"', "not of the right kind"),
        ("search = [1]", "not of the right kind"),
        ("texts = {a = 1}", "not of the right kind"),
        ('workers = "box"', "not of the right kind"),
        ('[workers]\nbox = "ssh box"', "`workers.box` has to say its command"),
        ("[workers.box]\ncommand = []", "`workers.box` has to say its command"),
        ('[workers.box]\ncommand = "ssh box"', "`workers.box` has to say its command"),
        ('[workers.box]\ncommand = ["ssh"]\nhost = "x"', "`workers.box` has to say its command"),
        *((f'[workers."{name}"]\ncommand = ["x"]', "no name for a worker") for name in ("cpu", "cuda:1", "-x", "a b")),
        ("[limits]\ntime_s = -1", "no positive number"),
        ("[limits]\npoints = 1.5", "no positive number"),
        ("[limits]\npoints = true", "no positive number"),
        ("[limits]\ntime_s = nan", "no positive number"),
        ("[limits]\nmemory_byte = 1", "did you mean `memory_bytes`"),
        ("devise = 1", "did you mean `device`"),
        ("zzz = 1", "it may have device, "),
    ],
)
def test_the_owner_is_told_of_slips(vault, owner, line, part):
    (owner / "config.toml").write_text(line)
    config = load(vault, owner)
    (problem,) = config.problems
    assert part in problem
    assert config == Config(ignored=config.ignored, problems=config.problems)


def test_an_empty_list_of_models_allows_none(vault, owner):
    (owner / "config.toml").write_text("models = []")
    assert load(vault, owner).models == ()


@pytest.mark.parametrize("folder", [".obsidian", ".obsidian-desktop"])
def test_excluded_files(vault, owner, folder):
    (vault / folder).mkdir()
    rules = ["Templates/", "Draft.md", "/\\d{4}-\\d\\d/", "/(/", "cafe\u0301/", "a.b"]
    (vault / folder / "app.json").write_text(json.dumps({"userIgnoreFilters": rules}))
    config = load(vault, owner)
    for path in ("Templates/x.md", "templates/x.md", "Draft.md", "daily/2024-01.md", "Caf\u00e9/x.md", "a.b.md"):
        assert config.ignored(path), path
    for path in ("My Templates/x.md", "x/Templates/y.md", "24-01.md", "aXb.md"):
        assert not config.ignored(path), path
    (problem,) = config.problems
    assert "`/(/`" in problem


@pytest.mark.parametrize("text", ["{", "[]", '{"userIgnoreFilters": null}', "{}"])
def test_obsidians_settings_in_any_state(vault, owner, text):
    (vault / ".obsidian").mkdir()
    (vault / ".obsidian/app.json").write_text(text)
    config = load(vault, owner)
    assert not config.ignored("a.md")
    assert len(config.problems) == (text in ("{", "[]"))


def test_the_lock_of_models(vault):
    assert read_lock(vault) == {}
    models = {"smollm2-135m": Locked("ab", "llama", "float32"), "a/b": Locked("cd", "gpt2", "bfloat16")}
    assert write_lock(vault, models)
    assert read_lock(vault) == models
    before = (vault / ".vaultlab/models.lock").stat().st_mtime_ns
    assert not write_lock(vault, dict(reversed(models.items())))
    assert (vault / ".vaultlab/models.lock").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": {}}', '{"a": {"sha256": "x", "family": "y", "dtype": "z", "path": "/"}}']
)
def test_a_lock_that_cannot_be_read(vault, text):
    (vault / ".vaultlab").mkdir()
    (vault / ".vaultlab/models.lock").write_text(text)
    with pytest.raises(NoteError, match=r"models\.lock could not be read"):
        read_lock(vault)
