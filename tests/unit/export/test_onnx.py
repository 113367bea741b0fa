from __future__ import annotations

import json
import shutil

import onnx
import pytest

from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError, UsageError
from slmops.export.onnx import SCHEMES, export_first, export_onnx
from slmops.export.parity import Side, compare
from slmops.files import read_json, size_bytes
from slmops.runtimes.base import Sampling, open_runtime
from slmops.testing.tiny import save_tiny_model

MESSAGES = [[{"role": "user", "content": text}] for text in ("hi", "where is my parcel", "please refund the money for the shoes")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny", layers=2)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    for scheme in ("int4", "w8a8", "int8"):
        export_onnx(model, root / scheme, scheme, max_length=64)
    return root


def side(engine, folder):
    runtime = open_runtime(engine, folder, threads=1)
    prompts = [ChatTemplate.load(folder).render(messages) for messages in MESSAGES]
    answers = [found.text for found in runtime.generate(prompts, Sampling(max_new_tokens=8))]
    return Side(prompts, [runtime.tokenize(prompt) for prompt in prompts], answers)


@pytest.mark.parametrize("scheme", ["w8a8", "int8"])
def test_eight_bits_keep_template_tokens_and_answers(scheme, model, exported):
    parity = compare(side("torch", model), side("ort-genai", exported / scheme))
    assert (parity.template_equal, parity.tokens_equal, parity.agreement) == (True, True, 1.0)


@pytest.mark.parametrize("scheme", ["int4", "w8a8", "int8"])
def test_rows_of_different_lengths_do_not_change_each_other(scheme, exported):
    runtime = open_runtime("ort-genai", exported / scheme, threads=1)
    prompts = [ChatTemplate.load(exported / scheme).render(messages) for messages in MESSAGES]
    alone = [runtime.generate([prompt], Sampling(max_new_tokens=8))[0] for prompt in prompts]
    assert runtime.generate(prompts, Sampling(max_new_tokens=8)) == alone


def test_clients_of_the_engine_get_the_same_prompt(exported):
    import onnxruntime_genai as og

    folder = exported / "int4"
    tokenizer = og.Tokenizer(og.Model(str(folder)))
    for messages in MESSAGES:
        assert tokenizer.apply_chat_template(json.dumps(messages)) == ChatTemplate.load(folder).render(messages)


def test_the_length_is_what_was_asked_for_and_nothing_names_this_machine(model, exported):
    folder = exported / "int8"
    assert read_json(folder / "genai_config.json")["search"]["max_length"] == 64
    for file in folder.iterdir():
        assert str(model.parent).encode() not in file.read_bytes()


@pytest.mark.parametrize("scheme", ["int4", "w8a8", "int8"])
def test_embedding_and_output_layer_are_one_table_in_the_file(scheme, exported):
    graph = onnx.load(str(exported / scheme / "model.onnx"), load_external_data=False).graph
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}["offset"]
        for tensor in graph.initializer
        if tensor.external_data
    }
    table = next(node.input[1] for node in graph.node if node.name.startswith("/lm_head/MatMul"))
    assert places["model.embed_tokens.weight"] == places[table]


def test_schemes_are_ordered_by_size(exported):
    sizes = [size_bytes(exported / scheme / "model.onnx.data") for scheme in SCHEMES if (exported / scheme).is_dir()]
    assert sizes == sorted(sizes)


def test_an_unknown_scheme_names_the_nearest(model, tmp_path):
    with pytest.raises(UsageError, match="int4-mixed"):
        export_onnx(model, tmp_path / "out", "int4-mixd", max_length=64)


def test_a_longer_context_than_the_models_is_refused_and_leaves_nothing(model, tmp_path):
    with pytest.raises(ModelError, match="context holds 256"):
        export_onnx(model, tmp_path / "out", "float32", max_length=1000)
    assert not (tmp_path / "out").exists()


def test_a_failure_shows_the_end_of_the_builders_log(model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "llama", "architectures": ["NoSuchModel"], "max_position_embeddings": 256}')
    shutil.copy(model / "model.safetensors", broken)
    with pytest.raises(ModelError, match=r"(?s)builder failed.*out\.log"):
        export_onnx(broken, tmp_path / "out", "int4", max_length=64)
    assert not (tmp_path / "out").exists()


def test_slow_conversions_run_side_by_side_and_what_is_there_is_not_made_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    targets = {scheme: tmp_path / scheme for scheme in ("int4", "int4-mixed")}
    export_first(model, targets, max_length=64)
    assert [read_json(folder / "export.json")["scheme"] for folder in targets.values()] == ["int4", "int4-mixed"]

    before = (tmp_path / "int4" / "model.onnx").stat().st_mtime_ns
    export_first(model, {"int4": tmp_path / "int4", "int8": tmp_path / "int8"}, max_length=64)
    assert (tmp_path / "int4" / "model.onnx").stat().st_mtime_ns == before
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize(("schemes", "cores"), [(("int4", "w8a8"), 2), (("int4", "int4-mixed"), 1)])
def test_a_conversion_waits_where_it_would_find_no_core(schemes, cores, model, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("slmops.export.onnx.export_onnx", lambda model, target, scheme, max_length: target.mkdir(parents=True))
    export_first(model, {scheme: tmp_path / scheme for scheme in schemes}, max_length=64)
    assert [folder.name for folder in tmp_path.iterdir()] == ["int4"]


def test_a_conversion_that_fails_beside_another_stops_nothing_yet(model, tmp_path, monkeypatch):
    def export(model, target, scheme, max_length):
        if scheme == "int4-mixed":
            raise ModelError("the model builder failed", where=str(model), fix="see the log")
        target.mkdir(parents=True)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("slmops.export.onnx.export_onnx", export)
    export_first(model, {scheme: tmp_path / scheme for scheme in ("int4", "int4-mixed")}, max_length=64)
    assert (tmp_path / "int4").is_dir()
    with pytest.raises(ModelError, match="builder failed"):
        export_first(model, {"int4-mixed": tmp_path / "int4-mixed"}, max_length=64)
