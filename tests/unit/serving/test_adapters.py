"""Adapters of one model behind the API: the request's ``model`` picks one, whoever else is asking."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from server_process import serving

from slmops.data.chat import ChatTemplate
from slmops.files import read_json, write_json
from slmops.multi_adapter import generate_adapters
from slmops.runtimes.base import Sampling
from slmops.runtimes.ort_genai import open_runtime
from slmops.testing.tiny import save_tiny_model
from tests.adapters import save_adapter
from tests.commands import Call

NAMES = ("multi", "classifier", "generator")
TEXTS = ("where is my parcel", "please refund the money", "delivery")
ORT_SERVER = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # whoever imports them now fails
from pathlib import Path
from slmops.serving.server import serve
serve(Path(sys.argv[1]), port=0, threads=1)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package whose second adapter was trained with a prompt of its own."""
    root = tmp_path_factory.mktemp("served")
    base = save_tiny_model(root / "base", layers=2)
    for seed, name in enumerate(NAMES[1:]):
        save_adapter(base, root / name, seed=seed, std=0.3, target_modules="all-linear")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (root / "generator" / file).write_bytes((base / file).read_bytes())
    (root / "generator/chat_template.jinja").write_text("{{ messages[0]['content'] }} =>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMOPS_CACHE", str(root / "cache"))
        generate_adapters(str(base), [root / name for name in NAMES[1:]], root / "multi", max_length=96, rows=1)
        yield root / "multi"


@pytest.fixture(scope="module")
def expected(package: Path) -> dict[tuple[str, str], str]:
    """What each model answers to each text, asked one by one in this process."""
    engine, chat = open_runtime(package, threads=1), ChatTemplate.load(package)
    models: dict[str, tuple[Any, ChatTemplate]] = {
        "multi": (engine, chat),
        "classifier": (engine.with_adapter("classifier"), chat),
        "generator": (engine.with_adapter("generator"), ChatTemplate("{{ messages[0]['content'] }} =>")),
    }
    return {
        (name, text): runtime.generate([template.render([{"role": "user", "content": text}])], Sampling(12))[0].text
        for name, (runtime, template) in models.items()
        for text in TEXTS
    }


def ask(client: openai.OpenAI, model: str, text: str, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], max_tokens=12, **more)


def test_the_model_of_a_request_picks_the_adapter_also_of_many_at_once(package: Path, expected: dict[tuple[str, str], str]) -> None:
    assert len({expected[name, TEXTS[0]] for name in NAMES}) == 3
    with serving(ORT_SERVER, package) as (_, client, log):
        assert [model.id for model in client.models.list()] == list(NAMES)
        assert client.models.retrieve("generator").id == "generator"
        asked = [key for key in expected for _ in range(3)]
        with ThreadPoolExecutor(len(asked)) as pool:
            replies = list(pool.map(lambda key: ask(client, *key), asked))
        assert [reply.choices[0].message.content for reply in replies] == [expected[key] for key in asked]
        assert [reply.model for reply in replies] == [name for name, _ in asked]
        chunks = list(ask(client, "classifier", TEXTS[1], stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected["classifier", TEXTS[1]]
        assert {chunk.model for chunk in chunks} == {"classifier"}
        with pytest.raises(openai.NotFoundError, match="'multi', 'classifier', 'generator'"):
            ask(client, "summarizer", "hi")
    assert any("serving multi, classifier, generator" in line for line in log)


def test_ask_takes_an_adapter_and_refuses_what_is_none(package: Path, call: Call, tmp_path: Path) -> None:
    # The answer's whole length takes the context; its beginning is enough.
    from_generator = call("ask", package, "--adapter", "generator", TEXTS[0])
    assert from_generator.code == 0, from_generator.err
    engine = open_runtime(package, threads=1).with_adapter("generator")
    (whole,) = engine.generate([f"{TEXTS[0]} =>"], Sampling(32))
    assert whole.text[:10] in from_generator.out
    unknown = call("ask", package, "--adapter", "generater", "hi")
    assert (unknown.code, "did you mean 'generator'?" in unknown.err) == (2, True)
    write_json(tmp_path / "genai_config.json", read_json(package / "genai_config.json"))
    none = call("ask", tmp_path, "--adapter", "generator", "hi")
    assert (none.code, "has no adapters" in none.err) == (2, True)
