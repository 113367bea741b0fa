"""A folder that Foundry Local takes as a custom model: ``inference_model.json`` beside ``genai_config.json``."""

from __future__ import annotations

from pathlib import Path

from slmops.data.chat import ChatTemplate
from slmops.errors import DataError
from slmops.files import write_json

_SLOT = "{Content}"
_TURNS = (
    [{"role": "user", "content": "Where is it?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
)


def write_foundry_files(folder: Path, name: str) -> str | None:
    """Write ``inference_model.json`` from the folder's own chat template.

    Foundry Local renders each turn by a pattern of its role; the patterns are found by rendering turns with a marker and
    then checked: prompts put together from them must be the bytes that the template renders.

    Returns:
        ``None`` where they are, else a sentence that says for which kind of conversation they are not.
    """
    chat = ChatTemplate.load(folder)
    patterns = _patterns(chat)
    wrong = [
        " + ".join(turn["role"] for turn in turns) for turns in _TURNS if _assembled(patterns, turns) != _rendered(chat, turns)
    ]
    write_json(folder / "inference_model.json", {"Name": name, "PromptTemplate": patterns})
    if not wrong:
        return None
    return f"Foundry Local's turn-by-turn prompt cannot render this chat template exactly for: {', '.join(wrong)}"


def _rendered(chat: ChatTemplate, turns: list[dict[str, str]]) -> str | None:
    """The prompt as the template renders it; ``None`` where it refuses such turns, as a text template does."""
    try:
        return chat.render(turns)
    except DataError:
        return None


def _assembled(patterns: dict[str, str], turns: list[dict[str, str]]) -> str:
    """The prompt as Foundry Local puts it together."""
    before = "".join(patterns[turn["role"]].replace(_SLOT, turn["content"]) for turn in turns[:-1])
    return before + patterns["prompt"].replace(_SLOT, turns[-1]["content"])


def _patterns(chat: ChatTemplate) -> dict[str, str]:
    """The text of one turn of each role, and of a whole prompt with one user turn."""
    prompt = chat.render([{"role": "user", "content": _SLOT}])
    with_system = _rendered(chat, [{"role": "system", "content": "\x00"}, {"role": "user", "content": _SLOT}])
    longer = _rendered(
        chat, [{"role": "user", "content": "\x01"}, {"role": "assistant", "content": "\x02"}, {"role": "user", "content": "\x03"}]
    )
    if with_system is None or longer is None:
        return {"system": "", "user": prompt, "assistant": "", "prompt": prompt}
    system_head, _, rest = with_system.partition("\x00")
    after = longer.partition("\x02")[2]
    head = prompt.partition(_SLOT)[0]
    end_of_prompt = prompt.partition(_SLOT)[2]
    system_end = rest.partition(head)[0] if head else rest.partition(_SLOT)[0]
    # What ends a system turn ends a user turn.
    user_end = system_end if end_of_prompt.startswith(system_end) else ""
    # Taken from a turn that has an answer: some templates put a space after the role that a prompt does not end with.
    assistant_head = longer.partition("\x01")[2].partition("\x02")[0].removeprefix(user_end)
    assistant_end = after.partition(head.rpartition("\x01")[0] or head)[0] if head else after.partition("\x03")[0]
    return {
        "system": f"{system_head}{_SLOT}{system_end}" if system_head or system_end else "",
        "user": f"{head}{_SLOT}{user_end}",
        "assistant": f"{assistant_head}{_SLOT}{assistant_end}",
        "prompt": prompt,
    }
