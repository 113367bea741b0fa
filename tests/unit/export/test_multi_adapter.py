"""Several adapters as inputs of one exported graph: answers are those of each merged alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError, UsageError
from slmops.export.adapter_set import AdapterSet
from slmops.export.lora import Lora, Site
from slmops.files import file_digest, read_json, write_json
from slmops.models.resolve import resolve
from slmops.multi_adapter import generate_adapters
from slmops.runtimes.base import Sampling, open_runtime
from slmops.runtimes.ort_genai import open_runtime as open_package
from slmops.testing.tiny import save_tiny_model
from tests.adapters import save_adapter

KINDS: dict[str, dict[str, Any]] = {
    "classifier": {"target_modules": "all-linear", "lora_alpha": 12},
    # Other ranks, another scale, and of the layers that the graph has in one product two.
    "generator": {"target_modules": ["q_proj", "v_proj", "down_proj"], "rank_pattern": {"v_proj": 2}, "r": 6, "use_rslora": True},
}
TEXTS = ("hi", "where is my parcel", "please refund the money for the shoes")
GREEDY = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a base and two adapters of it."""
    root = tmp_path_factory.mktemp("adapters")
    save_tiny_model(root / "base", layers=2)
    for number, (name, options) in enumerate(KINDS.items()):
        save_adapter(root / "base", root / name, seed=number + 1, std=0.3, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMOPS_CACHE", str(root / "cache"))
        yield root


@pytest.fixture(scope="module")
def package(place: Path) -> Path:
    generate_adapters(str(place / "base"), [place / name for name in KINDS], place / "multi", max_length=96)
    return place / "multi"


def answers(runtime: Any, template: ChatTemplate) -> list[tuple[int, ...]]:
    prompts = [template.render([{"role": "user", "content": text}]) for text in TEXTS]
    return [found.token_ids for found in runtime.generate(prompts, GREEDY)]


def expected(folder: Path) -> list[tuple[int, ...]]:
    return answers(open_runtime("torch", folder, threads=1), ChatTemplate.load(folder))


def test_each_adapter_answers_as_the_base_with_it_merged_and_none_as_the_base(place: Path, package: Path) -> None:
    shared = open_package(package, threads=1)
    template = ChatTemplate.load(package)
    found = {name: answers(shared.with_adapter(name), template) for name in KINDS}
    assert found == {name: expected(resolve(place / name).path) for name in KINDS}
    # After others were active, too.
    assert answers(shared, template) == expected(place / "base")
    assert len({str(own) for own in (*found.values(), answers(shared, template))}) == 3


def test_the_list_of_adapters_says_what_they_are_and_how_they_agree(place: Path, package: Path) -> None:
    known = AdapterSet.read(package)
    assert known is not None
    assert (known.name, known.scheme, known.base) == ("multi", "float32", str(place / "base"))
    assert known.agreement.rows == known.agreement.equal == 8
    classifier, generator = known.adapters
    assert (classifier.name, classifier.rank, classifier.source) == ("classifier", 4, str(place / "classifier"))
    assert classifier.targets == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert (generator.rank, generator.targets) == (6, ("down_proj", "q_proj", "v_proj"))
    # Ranks times widths of both sides: q 6·(64+64), v 2·(64+32), down 6·(128+64), in 2 layers.
    assert generator.parameters == 2 * (6 * 128 + 2 * 96 + 6 * 192)
    for entry in known.adapters:
        assert entry.agreement.equal == entry.agreement.rows == 8
        assert entry.agreement.same_tokens
        assert entry.sha256 == file_digest(package / entry.file)


def test_the_package_names_nothing_of_this_machine_but_where_adapters_came_from(place: Path, package: Path) -> None:
    for file in package.rglob("*"):
        if file.is_file() and file.name != "adapters.json":
            assert str(place).encode() not in file.read_bytes()
    assert read_json(package / "genai_config.json")["search"]["max_length"] == 96
    assert not list(place.glob(".multi*"))


def test_what_is_made_of_the_same_things_stays(place: Path, package: Path) -> None:
    before = (package / "model.onnx").stat().st_mtime_ns
    generate_adapters(str(place / "base"), [place / name for name in KINDS], package, max_length=96)
    assert (package / "model.onnx").stat().st_mtime_ns == before


@pytest.mark.parametrize("scheme", ["int4", "w8a8"])
def test_a_base_in_few_bits_with_adapters_of_zeros_is_the_base_and_others_change_it(
    scheme: str, place: Path, tmp_path: Path
) -> None:
    save_adapter(place / "base", tmp_path / "zeros", target_modules="all-linear", std=0.0)
    made = generate_adapters(
        str(place / "base"), [place / "classifier", tmp_path / "zeros"], tmp_path / scheme, scheme=scheme, max_length=96, rows=4
    )
    shared, template = open_package(tmp_path / scheme, threads=1), ChatTemplate.load(place / "base")
    assert shared.info.precision == scheme
    plain = answers(shared, template)
    assert answers(shared.with_adapter("zeros"), template) == plain
    assert answers(shared.with_adapter("classifier"), template) != plain
    assert made.agreement.rows == 4
    graph = onnx.load(str(tmp_path / scheme / "model.onnx"), load_external_data=False).graph
    rounded = [node for node in graph.node if node.op_type in ("MatMulNBits", "MatMulIntegerToFloat")]
    assert len(rounded) == 2 * 5 + 1  # qkv, o, gate, up and down of two layers, and the output layer


def test_layers_side_by_side_get_their_own_updates() -> None:
    random = np.random.default_rng(0)
    shapes = {"q": (4, 6), "k": (4, 2), "v": (4, 2)}
    q = (random.normal(size=(4, 3)), random.normal(size=(3, 6)))
    v = (random.normal(size=(4, 1)), random.normal(size=(1, 2)))
    values = Site("/model/layers.0/attn/qkv_proj", tuple(shapes.items())).values(Lora({"q": q, "v": v}))
    left, right = values.values()
    assert [*values] == ["model.layers.0.attn.qkv_proj.lora_A.weight", "model.layers.0.attn.qkv_proj.lora_B.weight"]
    assert (left.shape, right.shape) == ((4, 4), (4, 10))
    expected = np.concatenate([q[0] @ q[1], np.zeros((4, 2)), v[0] @ v[1]], axis=1)
    np.testing.assert_allclose(left @ right, expected, rtol=1e-5)
    assert Site("/x", (("k", (4, 2)),)).values(Lora({"q": q})) == {}


def test_the_graph_keeps_the_standard_meaning_of_a_default(package: Path) -> None:
    graph = onnx.load(str(package / "model.onnx"), load_external_data=False).graph
    names = {value.name for value in graph.input}
    defaults = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.name in names}
    assert len(defaults) == 2 * 2 * 5
    assert defaults["model.layers.1.mlp.down_proj.lora_A.weight"] == (128, 0)
    assert defaults["model.layers.1.mlp.down_proj.lora_B.weight"] == (0, 64)
    product = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    (zeros,) = ReferenceEvaluator(product).run(None, {"a": np.zeros((3, 0)), "b": np.zeros((0, 2))})
    np.testing.assert_array_equal(zeros, np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "DoRA"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "modules_to_save"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "lora_B.bias is no weight of an adapted linear layer"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.* is no weight of an adapted linear layer"),
    ],
)
def test_adapters_that_are_no_plain_lora_are_refused_with_the_reason(
    options: dict[str, Any], reason: str, place: Path, tmp_path: Path
) -> None:
    save_adapter(place / "base", tmp_path / "own", **options)
    with pytest.raises(ModelError, match=reason):
        generate_adapters(str(place / "base"), [tmp_path / "own"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("change", "reason"), [({"peft_type": "IA3"}, "IA3"), ({"init_lora_weights": "pissa"}, "pissa")])
def test_adapters_of_other_kinds_are_refused_by_their_settings(
    change: dict[str, Any], reason: str, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "generator", tmp_path / "own")
    config = tmp_path / "own" / "adapter_config.json"
    write_json(config, read_json(config) | change)
    with pytest.raises(ModelError, match=reason):
        generate_adapters(str(place / "base"), [tmp_path / "own"], tmp_path / "out")


def test_an_adapter_of_another_base_names_both(place: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", layers=2, seed=5)
    with pytest.raises(ModelError, match=r"trained on .*/base, and the base is .*/other"):
        generate_adapters(str(other), [place / "classifier"], tmp_path / "out")
    config = tmp_path / "lost" / "adapter_config.json"
    shutil.copytree(place / "classifier", tmp_path / "lost")
    write_json(config, read_json(config) | {"base_model_name_or_path": "/nowhere/lost"})
    with pytest.raises(ModelError, match=r"trained on /nowhere/lost .*not found.*, and the base is .*/base"):
        generate_adapters(str(place / "base"), [tmp_path / "lost"], tmp_path / "out")


def test_names_are_checked_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    base, both = str(place / "base"), [place / "classifier", place / "generator"]
    for names, words in (
        (["a"], "1 names for 2 adapters"),
        (["a", "a"], "two adapters are called 'a'"),
        (["a", "b/c"], "'b/c' cannot be the name of a file"),
        (["a", "out"], "'out' is what requests call the base"),
    ):
        with pytest.raises(UsageError, match=words):
            generate_adapters(base, both, tmp_path / "out", names=names)
    with pytest.raises(ModelError, match="no adapter here"):
        generate_adapters(base, [place / "base"], tmp_path / "out")


def test_a_folder_with_something_else_is_not_replaced(place: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        generate_adapters(str(place / "base"), [place / "classifier"], tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_package_without_an_adapters_file_says_so(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "copy")
    (tmp_path / "copy/adapters/generator.onnx_adapter").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_package(tmp_path / "copy")
    (tmp_path / "copy/adapters.json").write_text(json.dumps({"name": "copy"}))
    with pytest.raises(ModelError, match="list of adapters cannot be read"):
        open_package(tmp_path / "copy")
