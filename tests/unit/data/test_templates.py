"""How a row becomes token ids, and which of them are trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Template, choose_template, foreign_tokens
from slmops.errors import ConfigError, DataError
from slmops.testing.tiny import CHAT_TEMPLATE, tiny_tokenizer

ROW = Row.of("where is my parcel", "delivery", origin="rows.csv:3")


def tokens_of(template: Template, ids: tuple[int, ...] | list[int]) -> list[str]:
    return [template.tokenizer.decode([token]) for token in ids]


def test_the_answer_and_the_end_token_are_trained_and_nothing_else(template: Template) -> None:
    encoded = template.encode(ROW)
    trained = [label != IGNORED for label in encoded.labels]
    assert list(zip(tokens_of(template, encoded.input_ids), trained, strict=True)) == [
        ("<|im_start|>", False),
        ("user", False),
        ("\n", False),
        ("whe", False),
        ("re", False),
        (" is", False),
        (" my", False),
        (" p", False),
        ("ar", False),
        ("cel", False),
        ("<|im_end|>", False),
        ("\n", False),
        ("<|im_start|>", False),
        ("as", False),
        ("s", False),
        ("istant", False),
        ("\n", False),
        ("delive", True),
        ("ry", True),
        ("<|im_end|>", True),
    ]
    assert all(label in (IGNORED, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))
    assert encoded.prompt_length == 17
    assert tokens_of(template, encoded.answer_ids) == ["delive", "ry", "<|im_end|>"]


def test_the_whole_of_what_the_template_makes_of_a_row_is_trained_on_request() -> None:
    template = choose_template(tiny_tokenizer(), "own", "{message} => {label}", "all")
    encoded = template.encode(ROW)
    trained = [label != IGNORED for label in encoded.labels]
    assert list(zip(tokens_of(template, encoded.input_ids), trained, strict=True)) == [
        ("whe", False),  # nothing stands before it
        ("re", True),
        (" is", True),
        (" my", True),
        (" p", True),
        ("ar", True),
        ("cel", True),
        (" ", True),
        ("=", True),
        (">", True),
        (" del", True),
        ("ive", True),
        ("ry", True),
        ("<|im_end|>", True),
    ]
    answer = choose_template(tiny_tokenizer(), "own", "{message} => {label}")
    assert encoded.input_ids == answer.encode(ROW).input_ids
    assert [label for label in encoded.labels if label != IGNORED] == list(encoded.input_ids[1:])
    assert template.fingerprints["mask"] != answer.fingerprints["mask"]
    assert template.fingerprints["template"] == answer.fingerprints["template"]


def test_a_text_begins_with_a_start_token_where_the_tokenizer_puts_one() -> None:
    from tokenizers import processors

    row = Row.of("where is my parcel")
    tokenizer = tiny_tokenizer()
    plain = Template(tokenizer, choose_template(tokenizer, "own").chat, "text").text_ids(row)
    assert tokenizer.decode(plain) == row.question
    start = int(tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(str(tokenizer.bos_token), start)]
    )
    assert Template(tokenizer, choose_template(tokenizer, "own").chat, "text").text_ids(row) == [start, *plain]


def test_what_stands_before_the_answer_in_training_is_the_prompt_in_use(template: Template) -> None:
    encoded = template.encode(ROW)
    assert list(encoded.input_ids[: encoded.prompt_length]) == template.prompt_ids(ROW)


def test_earlier_answers_of_a_conversation_are_not_trained(template: Template) -> None:
    turns = [("user", "hello"), ("assistant", "greeting"), ("user", "where is it")]
    row = Row.of([{"role": role, "content": content} for role, content in turns], "delivery")
    encoded = template.encode(row)
    assert template.tokenizer.decode(encoded.answer_ids) == "delivery<|im_end|>"
    assert "greeting" in template.tokenizer.decode(encoded.input_ids[: encoded.prompt_length])


def test_a_text_templates_space_is_trained_with_the_answer() -> None:
    template = choose_template(tiny_tokenizer(), "own", "{phrase} => {tone}")
    encoded = template.encode(Row.of("so glad", "delivery"))
    assert template.tokenizer.decode(encoded.input_ids) == "so glad => delivery<|im_end|>"
    assert tokens_of(template, encoded.answer_ids) == [" del", "ive", "ry", "<|im_end|>"]


def test_a_begin_token_is_rendered_for_tokenizers_that_add_one() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    template = choose_template(tokenizer, "own", "{phrase} => {tone}")
    assert tokens_of(template, template.prompt_ids(Row.of("my"))) == ["<|im_start|>", "m", "y", " ", "=", ">"]


@pytest.mark.parametrize("answer", [None, ""])
def test_a_row_without_an_answer_cannot_be_trained_on(template: Template, answer: str | None) -> None:
    with pytest.raises(DataError, match=r"rows\.csv:3: the row has no answer"):
        template.encode(ROW.with_answer(answer))


def test_a_recipe_chooses_the_template(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    (tmp_path / "own.jinja").write_text("Q: {{ messages[-1].content }} A:")
    assert choose_template(tokenizer, "own").chat.jinja == CHAT_TEMPLATE
    assert choose_template(tokenizer, "plain").prompt(ROW) == "user: where is my parcel\nassistant:"
    assert choose_template(tokenizer, str(tmp_path / "own.jinja")).prompt(ROW) == "Q: where is my parcel A:"
    tokenizer.chat_template = None
    assert choose_template(tokenizer, "own").prompt(ROW) == "user: where is my parcel\nassistant:"


def test_a_template_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no such template 'compct'.*\n.*own, compact, plain"):
        choose_template(tiny_tokenizer(), "compct")


def test_compact_needs_the_tokens_of_chatml() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, "a")), eos_token="</s>")
    with pytest.raises(ConfigError, match=r"does not know <\|im_start\|>, <\|im_end\|>"):
        choose_template(tokenizer, "compact")
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        choose_template(tokenizer, "own")


def test_the_fingerprints_change_with_anything_that_changes_the_token_ids() -> None:
    from tokenizers import normalizers

    lower = tiny_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    templates = [
        choose_template(tiny_tokenizer(), "compact"),
        choose_template(tiny_tokenizer(), "plain"),
        choose_template(tiny_tokenizer(), "own", "{a} => {b}"),
        choose_template(tiny_tokenizer(), "own", "{a} =>  {b}"),
        choose_template(tiny_tokenizer(380), "compact"),
        choose_template(lower, "compact"),
    ]
    found = [template.fingerprints for template in templates]
    assert len({tuple(prints.values()) for prints in found}) == len(templates)
    assert choose_template(tiny_tokenizer(), "compact").fingerprints == found[0]
    changed = [{name for name in prints if prints[name] != found[0][name]} for prints in found[1:]]
    assert changed == [{"template"}, {"template"}, {"template"}, {"tokenizer"}, {"tokenizer"}]


def test_the_fingerprints_outlive_saving(template: Template, tmp_path: Path) -> None:
    from slmops.models.load import load_tokenizer

    template.save(tmp_path)
    again = choose_template(load_tokenizer(tmp_path), "own")
    assert again.fingerprints == template.fingerprints
    assert again.encode(ROW) == template.encode(ROW)


def test_tokens_of_rows_are_those_of_prompts_and_of_answers_where_there_are_any(template: Template) -> None:
    unanswered = Row.of("the discount code", None)
    assert template.token_ids([ROW, unanswered]) == [list(template.encode(ROW).input_ids), template.prompt_ids(unanswered)]


LLAMA = "<|start_header_id|>user<|end_header_id|>\n{phrase}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n{tone}"


@pytest.mark.parametrize(
    ("template", "foreign"),
    [
        (LLAMA, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
        ("<|im_start|>user\n{phrase}<|im_end|>\n{tone}", []),
        ("<s>[INST] <<SYS>>be kind<</SYS>> {phrase} [/INST] {tone}", ["<s>", "[INST]", "<<SYS>>", "<</SYS>>", "[/INST]"]),
        ("<start_of_turn>user\n{phrase}<end_of_turn>\n{tone}", ["<start_of_turn>", "<end_of_turn>"]),
        ("a < b | c > {phrase} <|{tone}|> => {tone}", []),
    ],
)
def test_another_models_marks_are_no_tokens_of_a_tokenizer(template: str, foreign: list[str]) -> None:
    assert foreign_tokens(template, tiny_tokenizer()) == foreign
