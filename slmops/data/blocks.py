"""Texts in blocks: joined with an end token between them, and cut into pieces of one length.

As ``group_texts`` of transformers' example ``run_clm``, except that the end token is put there and the last, shorter block is kept.
A token sees all tokens before it in its block, those of the text before too: what the end token means is then learned, and no block
needs a mask of its own, which would keep kernels from the plain causal attention that they are fastest at.
"""

from __future__ import annotations

from collections.abc import Sequence

from slmops.data.templates import IGNORED, Encoded


def blocks_of(texts: Sequence[Sequence[int]], end: int, length: int) -> list[tuple[int, Encoded]]:
    """Blocks of the token ids of texts; each with the index of the text that it begins in.

    The first token of a block is read and not trained on, since nothing stands before it; a last block of a single token is left
    out.

    Args:
        texts: Token ids.
        end: What stands between two texts.
        length: Tokens of a block, at least 2.
    """
    ids: list[int] = []
    owners: list[int] = []
    for number, text in enumerate(texts):
        if number:
            ids.append(end)
            owners.append(number - 1)
        ids += text
        owners += [number] * len(text)
    found = []
    for start in range(0, len(ids) - 1, length):
        block = tuple(ids[start : start + length])
        found.append((owners[start], Encoded(block, (IGNORED, *block[1:]))))
    return found
