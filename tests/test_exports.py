"""Models exported from checkpoints: they answer as the checkpoint does, or are not kept."""

import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from ftlab_kit import Workspace, checkpoints, datasets, evaluators, models, trainers
from ftlab_kit.checkpoints import gguf_file, integrity
from ftlab_kit.errors import Conflict, InputError, NotFound
from ftlab_kit.lm import loading
from ftlab_kit.records import Job, Progress
from tests.conftest import TINY


def perplexity(lab: Workspace, target, **settings) -> float:
    evaluation = evaluators.run(lab, target, "hues", metrics=["perplexity"], **settings)
    value = evaluation.scores["perplexity"]
    assert value is not None
    return value


def test_a_merged_model_is_a_model_like_any_other(lab: Workspace, job: Job):
    export = checkpoints.merge(lab, job, "merged")
    assert export.certificate.is_ok and export.certificate.n_same == export.certificate.n_answers
    assert models.get(lab, "merged").path == export.path
    assert perplexity(lab, "merged") == pytest.approx(perplexity(lab, job), rel=1e-5)
    again = trainers.start(lab, TINY.but(model="merged", max_steps=1), "hues")
    assert trainers.wait(lab, again, timeout_s=120).state == "completed"
    assert export in checkpoints.exports(lab, job)
    with pytest.raises(Conflict, match="There is a model 'merged' already"):
        checkpoints.merge(lab, job, "merged")


def test_a_job_that_trained_every_weight_is_exported_as_it_is(lab: Workspace):
    full = trainers.start(lab, TINY.but(adapter="none", max_steps=2), "hues")
    full = trainers.wait(lab, full, timeout_s=120)
    export = checkpoints.merge(lab, full, "whole")
    assert export.certificate.change == pytest.approx(0, abs=1e-6)


def test_the_checkpoint_of_a_step_is_merged(lab: Workspace, job: Job):
    first = trainers.checkpoints(lab, job)[0].step
    export = checkpoints.merge(lab, job, "early", checkpoint=first)
    assert export.step == first
    assert perplexity(lab, "early") == pytest.approx(perplexity(lab, job, checkpoint=first))


@pytest.mark.parametrize("format", ["safetensors-f16", "gguf-f32", "gguf-f16", "gguf-q8_0"])
def test_an_export_answers_as_its_checkpoint(lab: Workspace, job: Job, format: str):
    steps: list[Progress] = []
    export = checkpoints.export(lab, job, format=format, progress=steps.append)
    assert export.certificate.is_ok
    assert abs(export.certificate.change) <= export.certificate.max_change
    assert perplexity(lab, export) == pytest.approx(perplexity(lab, job), rel=0.03)
    saved = (
        json.loads((export.path.parent / "certificate.json").read_text())
        if "gguf" in format
        else {}
    )
    assert not saved or saved["perplexity_after"] == export.certificate.perplexity_after
    kind, _, precision = format.partition("-")
    assert [(step.done, step.total, step.note) for step in steps] == [
        (0, 3, "measuring the checkpoint"),
        (1, 3, f"writing {kind} in {precision}"),
        (2, 3, "reading it back and measuring again"),
        (3, 3, "done"),
    ]
    assert not [*lab.exports.glob(".*")]


def test_llama_cpp_reads_the_file_and_answers_the_same(lab: Workspace, job: Job):
    server = served(checkpoints.export(lab, job, format="gguf-f32").path)
    settings = {"metrics": ["chrf"], "max_rows": 6, "max_new_tokens": 12}
    ours = evaluators.run(lab, job, "hues", **settings)
    # what is served is a deployment: it is scored by the same call
    theirs = evaluators.run(lab, f"openai:tiny@{server.listening_address}/v1", "hues", **settings)
    same = sum(a.answer == b.answer for a, b in zip(ours.samples, theirs.samples, strict=True))
    assert same >= 5


def served(path: Path):
    """llama.cpp with a file."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(path), 512, False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        params.port = free.getsockname()[1]
    return xllamacpp.Server(params)


@pytest.mark.parametrize(
    "text", ["a\n\n  b\n\nc", "Coat 12345, $1,299.00", "DON'T (we) say", "東 😀"]
)
def test_llama_cpp_makes_the_same_tokens_of_a_text(lab: Workspace, gguf_of_tiny: str, text: str):
    path = models.get(lab, "tiny").path
    assert path is not None
    body = {"content": text, "add_special": False}
    ids = httpx.post(f"{gguf_of_tiny}/tokenize", json=body).json()["tokens"]
    assert ids == loading.tokenizer(path)(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def gguf_of_tiny(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where llama.cpp serves the tiny model."""
    path, folder = tmp_path_factory.mktemp("gguf") / "tiny.gguf", models.get(lab, "tiny").path
    assert folder is not None
    gguf_file.write(folder, path, "f16")
    server = served(path)
    yield server.listening_address
    del server


def test_heads_of_another_size_than_their_share_are_said(lab: Workspace, tmp_path: Path):
    path = models.get(lab, "tiny").path
    assert path is not None
    shutil.copytree(path, tmp_path / "wide")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    wide = LlamaForCausalLM(LlamaConfig(**sizes, **heads, vocab_size=49152))
    wide.save_pretrained(tmp_path / "wide")
    gguf_file.write(tmp_path / "wide", tmp_path / "wide.gguf", "f32")
    assert served(tmp_path / "wide.gguf").listening_address  # it would not load


SPLIT = next(text for text, name in gguf_file.SPLITTERS.items() if name == "llama-bpe")
BYTES = {"type": "ByteLevel", "use_regex": False}


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([{"type": "Split", "pattern": {"Regex": SPLIT}}, BYTES], "llama-bpe"),
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}], "smollm"),
        ([{"type": "ByteLevel"}], "gpt-2"),
        ([{"type": "Split", "pattern": {"Regex": "[a-z]+"}}, BYTES], None),
        ([{"type": "Metaspace"}], None),
    ],
)
def test_how_texts_are_split_is_known_or_not_written(steps: list[dict], name: str | None):
    config = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    assert gguf_file._splitter({**config, "model": {"type": "BPE"}}) == name


def test_an_export_that_answers_differently_is_not_kept(lab: Workspace, job: Job):
    # values beyond what 16 bits hold are infinite in f16: a real way to lose a model
    path = trainers.checkpoints(lab, job)[-1].path
    other = lab.root / "loud"
    base = models.get(lab, "tiny").path
    assert base is not None
    export = copy_of(base, other, scale=1e6)
    models.add(lab, "loud", export)
    loud = trainers.start(lab, TINY.but(model="loud", max_steps=1), "hues")
    loud = trainers.wait(lab, loud, timeout_s=120)
    with pytest.raises(Conflict, match="does not answer as the checkpoint does: perplexity"):
        checkpoints.export(lab, loud, format="safetensors-f16")
    assert checkpoints.exports(lab, loud) == () and not [*lab.exports.glob(f"*job-{loud.id}-*")]
    forced = checkpoints.export(lab, loud, format="safetensors-f16", force=True)
    assert not forced.certificate.is_ok and forced.path.exists() and path.exists()
    assert forced.certificate.perplexity_after is None
    assert "NaN" not in (forced.path / "certificate.json").read_text()


def test_an_adapter_with_nan_is_not_merged(lab: Workspace, job: Job):
    last, partial = trainers.checkpoints(lab, job)[-1], lab.root / "partial"
    shutil.copytree(last.path, partial, ignore=shutil.ignore_patterns("MANIFEST*"))
    adapter = load_file(partial / "adapter_model.safetensors")
    next(values for name, values in adapter.items() if "lora_B" in name).fill_(torch.nan)
    save_file(adapter, partial / "adapter_model.safetensors", metadata={"format": "pt"})
    integrity.commit(lab, job.id, 99, partial, losses={"loss": 1.0, "eval_loss": None}, facts={})
    try:
        with pytest.raises(Conflict, match="holds NaN or infinity .* Use an earlier one"):
            checkpoints.merge(lab, job, "nothing", checkpoint=99)
    finally:
        lab.store.delete("checkpoints", job_id=job.id, step=99)
    assert not [*lab.models.glob("*nothing*")]


def test_one_of_two_merges_at_once_under_a_name_is_refused(lab: Workspace, job: Job):
    def merge(_: int) -> str:
        try:
            return str(checkpoints.merge(lab, job, "same-name").certificate.is_ok)
        except Conflict as error:
            return str(error)

    with ThreadPoolExecutor(2) as both:
        outcomes = sorted(both.map(merge, range(2)))
    assert outcomes[0].startswith("There is a model 'same-name' already") and outcomes[1] == "True"


def copy_of(base: Path, folder: Path, *, scale: float) -> Path:
    """The same model with the scales of its norms far apart: large values within, the same out."""
    folder.mkdir()
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(base / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith("up_proj.weight"):
            tensors[name] = values * scale
        if name.endswith("down_proj.weight"):
            tensors[name] = values / scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_nothing_is_merged_into_4_bit_weights(lab: Workspace, job: Job):
    path = models.get(lab, "tiny").path
    assert path is not None
    config, text = path / "config.json", (path / "config.json").read_text()
    quantised = {**json.loads(text), "quantization_config": {"load_in_4bit": True}}
    config.write_text(json.dumps(quantised))
    try:
        with pytest.raises(Conflict, match="merged into plain weights only"):
            checkpoints.merge(lab, job, "rounded")
    finally:
        config.write_text(text)


@pytest.mark.parametrize(
    ("format", "message"),
    [("gguf-q4", "gguf-q8_0"), ("onnx", "expected one of"), ("gguf", "gguf-f16")],
)
def test_an_unknown_format_names_the_known_ones(
    lab: Workspace, job: Job, format: str, message: str
):
    with pytest.raises(InputError, match=message):
        checkpoints.export(lab, job, format=format)


def test_an_unknown_checkpoint_is_refused(lab: Workspace, job: Job):
    with pytest.raises(InputError, match="expected 'last', 'best' or a step"):
        checkpoints.export(lab, job, checkpoint="first")
    with pytest.raises(NotFound, match="no checkpoint of step 77"):
        checkpoints.export(lab, job, checkpoint=77)


def test_an_unsupported_family_needs_llama_cpps_converter(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(InputError, match="Put llama.cpp's convert_hf_to_gguf.py on the PATH"):
        gguf_file.write(tmp_path, tmp_path / "model.gguf", "f16")


def test_rows_of_q_and_k_are_permuted_for_llama_cpp():
    rows = torch.arange(8.0).reshape(8, 1).numpy()  # two heads of four numbers
    assert gguf_file._permuted(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_rows_of_the_certificate_are_held_out_ones(lab: Workspace, job: Job):
    held_out = datasets.get(lab, job.held_out_version_id or 0)
    export = checkpoints.export(lab, job, format="safetensors-f32")
    assert export.certificate.n_rows == min(16, held_out.n_rows)
