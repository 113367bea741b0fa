"""Texts in blocks: where they are cut, and what of them is trained on."""

from __future__ import annotations

import pytest

from slmops.data.blocks import blocks_of
from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.training.batches import collate
from slmops.training.inputs import encode_rows

END = 9


@pytest.mark.parametrize(
    ("length", "blocks"),
    [
        (4, [(0, (1, 2, 3, END)), (1, (4, 5))]),
        (3, [(0, (1, 2, 3)), (0, (END, 4, 5))]),  # the end token is the first text's
        (5, [(0, (1, 2, 3, END, 4))]),  # a single token that is left predicts nothing
        (9, [(0, (1, 2, 3, END, 4, 5))]),
        (2, [(0, (1, 2)), (0, (3, END)), (1, (4, 5))]),
    ],
)
def test_texts_are_joined_and_cut(length: int, blocks: list[tuple[int, tuple[int, ...]]]) -> None:
    found = blocks_of([[1, 2, 3], [4, 5]], END, length)
    assert found == [(owner, Encoded(ids, (IGNORED, *ids[1:]))) for owner, ids in blocks]


def test_all_tokens_of_a_block_but_the_first_are_predicted() -> None:
    (_, one), (_, two) = blocks_of([[1, 2, 3], [4, 5]], END, 4)
    batch = collate([one, two], pad_id=0)
    assert batch["shift_labels"].tolist() == [2, 3, END, 5]
    # The token at a column is predicted by the one before it: columns 0 to 2 of the first block, column 2 of the padded second.
    assert batch["input_ids"].tolist() == [[1, 2, 3, END], [0, 0, 4, 5]]
    assert batch["logits_to_keep"].tolist() == [0, 1, 2]
    assert batch["answer_index"].tolist() == [0, 1, 2, 5]


def test_no_text_and_a_single_token_are_no_block() -> None:
    assert blocks_of([], END, 4) == blocks_of([[1]], END, 4) == []


def test_rows_become_blocks_with_the_row_that_each_begins_in(template: Template) -> None:
    texts = Template(template.tokenizer, template.chat, trained_on="text")
    rows = [Row.of("where is my parcel", None, "a"), Row.of("please refund the money for the shoes", None, "b")]
    kept, blocks = encode_rows(rows, texts, 8)
    ids = [token for block in blocks for token in block.input_ids]
    first, second = (template.tokenizer(row.question, add_special_tokens=False)["input_ids"] for row in rows)
    assert ids == [*first, template.tokenizer.eos_token_id, *second][: len(ids)]
    assert (kept[0].origin, kept[-1].origin) == ("a", "b")
    assert {len(block.input_ids) for block in blocks[:-1]} == {8}
