from __future__ import annotations

import pytest
import torch

from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError
from slmops.export.onnx import export_onnx
from slmops.runtimes.base import Sampling, open_runtime
from slmops.testing.runtimes import TEXTS
from slmops.testing.tiny import save_tiny_model, tiny_tokenizer

GREEDY = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    model = save_tiny_model(root / "tiny")
    export_onnx(model, root / "onnx", "float32", max_length=128)
    return {"torch": model, "ort-genai": root / "onnx"}


@pytest.fixture(scope="module")
def prompts(models):
    chat = ChatTemplate.load(models["torch"])
    return [chat.render([{"role": "user", "content": text}]) for text in TEXTS]


@pytest.fixture(scope="module")
def expected(models, prompts):
    """What transformers itself generates, one prompt at a time."""
    runtime = open_runtime("torch", models["torch"], threads=1)
    found = []
    for prompt in prompts:
        ids = torch.tensor([runtime.tokenize(prompt)])
        output = runtime.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        answer = output[0, ids.shape[1] :].tolist()
        end = runtime.tokenizer.eos_token_id
        found.append(tuple(answer[: answer.index(end)] if end in answer else answer))
    return found


@pytest.mark.parametrize("name", ["torch", "ort-genai"])
def test_greedy_answers_are_those_of_transformers(name, models, prompts, expected):
    runtime = open_runtime(name, models[name], threads=1)
    assert [runtime.generate([prompt], GREEDY)[0].token_ids for prompt in prompts] == expected
    assert [found.token_ids for found in runtime.generate(prompts, GREEDY)] == expected


def test_pytorch_goes_on_with_tokens_up_to_the_end_token(models, prompts, expected):
    runtime = open_runtime("torch", models["torch"], threads=1)
    batch = [runtime.tokenize(prompt) for prompt in prompts]
    whole = runtime.complete(batch, GREEDY)
    assert [own[: len(answer)] for own, answer in zip(whole, expected, strict=True)] == expected
    assert [len(own) for own in whole] == [min(8, len(answer) + 1) for answer in expected]
    end = whole[0][2]
    runtime._end_ids = {end}
    ended = runtime.complete(batch, GREEDY)
    assert ended[0] == whole[0][: whole[0].index(end) + 1]
    assert ended == [own[: own.index(end) + 1] if end in own else own for own in whole]
    assert runtime.complete([], GREEDY) == []


def test_both_engines_see_the_same_token_ids(models, prompts):
    torch_runtime, ort = (open_runtime(name, folder, threads=1) for name, folder in models.items())
    for text in [*prompts, "", "two  spaces\ttab\n\n", "日本 é <|im_end|>"]:
        assert torch_runtime.tokenize(text) == ort.tokenize(text)


def test_neither_engine_adds_a_token_that_the_tokenizer_would_put_first(models, tmp_path):
    from tokenizers.processors import TemplateProcessing

    model = save_tiny_model(tmp_path / "tiny", layers=1)
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.unk_token_id)]
    )
    tokenizer.save_pretrained(model)
    export_onnx(model, tmp_path / "onnx", "float32", max_length=64)
    folders = {"torch": model, "ort-genai": tmp_path / "onnx"}
    ids = [open_runtime(name, folder, threads=1).tokenize("hi there") for name, folder in folders.items()]
    assert ids[0] == ids[1] == tiny_tokenizer()("hi there")["input_ids"]


def test_more_prompts_than_a_batch_of_the_engine_holds(models, prompts):
    runtime = open_runtime("ort-genai", models["ort-genai"], threads=1)
    alone = [runtime.generate([prompt], GREEDY)[0] for prompt in prompts]
    assert runtime.generate(prompts * 14, GREEDY) == alone * 14


def test_a_prompt_that_ends_in_the_pad_token_keeps_it_in_a_batch(models, prompts):
    runtime = open_runtime("ort-genai", models["ort-genai"], threads=1)
    mixed = ["hi<|im_end|>", prompts[2]]
    assert runtime.generate(mixed, GREEDY) == [runtime.generate([prompt], GREEDY)[0] for prompt in mixed]


def test_a_folder_that_was_not_exported_is_refused(models):
    with pytest.raises(ModelError, match=r"genai_config\.json"):
        open_runtime("ort-genai", models["torch"])
