from __future__ import annotations

import pytest

from slmops.errors import DataError
from slmops.runtimes.base import Sampling
from slmops.runtimes.decoding import Answer, check_prompt

END = 0


def decode(ids):
    """A tokenizer whose tokens are bytes."""
    return bytes(ids).decode(errors="replace")


def stream(text, **sampling):
    answer = Answer(decode, {END}, Sampling(**sampling), prompt_tokens=3)
    pieces = []
    for token in [*text.encode(), END]:
        answer.push(token)
        pieces.append(answer.take())
        if answer.done:
            break
    return pieces, answer.generation()


def test_a_character_of_several_tokens_comes_out_whole():
    pieces, generation = stream("a🎉b")
    assert [piece for piece in pieces if piece] == ["a", "🎉", "b"]
    assert generation.text == "a🎉b"


def test_the_end_token_stops_the_answer_and_is_not_part_of_it():
    _, generation = stream("ab")
    assert (generation.text, generation.token_ids, generation.finish_reason) == ("ab", (97, 98), "stop")


def test_the_limit_ends_the_answer():
    _, generation = stream("abcdef", max_new_tokens=3)
    assert (generation.text, generation.finish_reason) == ("abc", "length")


def test_what_may_become_a_stop_string_is_held_back():
    pieces, generation = stream("one\n\ntwo", stop=("\n\n",))
    assert "".join(pieces) == generation.text == "one"
    assert generation.finish_reason == "stop"


def test_what_looked_like_a_stop_string_is_let_out_when_it_is_none():
    pieces, generation = stream("one\ntwo\n", stop=("\n\n",))
    assert "".join(pieces) == generation.text == "one\ntwo\n"


def test_an_answer_cut_in_mid_character_loses_nothing():
    pieces, generation = stream("a🎉", max_new_tokens=3)
    assert "".join(pieces) == generation.text
    assert generation.text.startswith("a")


@pytest.mark.parametrize(("ids", "new", "what"), [([], 1, "empty"), ([1, 2], 0, "0 tokens"), ([1, 2], 9, "holds 10")])
def test_a_prompt_without_room_for_its_answer_is_refused(ids, new, what):
    with pytest.raises(DataError, match=what):
        check_prompt(ids, Sampling(max_new_tokens=new), 10)
