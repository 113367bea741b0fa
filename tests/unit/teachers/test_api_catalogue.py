"""API teachers by name: what is known of them, what a recipe overrides, and what comes from the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slmops.errors import ConfigError, UsageError
from slmops.teachers.catalogue import API_MODELS, ApiOptions, find_api_model, is_api_teacher


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in API_MODELS.values():
        monkeypatch.delenv(model.key_env, raising=False)
        monkeypatch.delenv(model.base_url_env, raising=False)
    for name in ("TEACHER_API_KEY", "TEACHER_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_promised_teachers_are_there_with_price_and_terms() -> None:
    promised = ["deepseek-v3", "llama-3.1-405b-instruct", "gpt-4", "gpt-4o", "claude-3.5-sonnet"]
    assert list(API_MODELS) == promised
    for name in promised:
        model = find_api_model(name)
        assert model.cost(1e6, 0) == model.price_input
        assert model.cost(0, 1e6) == model.price_output
        assert model.price_date.startswith("20")
        assert model.context_length >= 8192
        assert len(model.terms) > 20


@pytest.mark.parametrize(
    ("wrong", "right"), [("gpt4o", "gpt-4o"), ("claude-3-5-sonnet", "claude-3.5-sonnet"), ("deepseek", "deepseek-v3")]
)
def test_an_unknown_name_gets_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{right}'"):
        find_api_model(wrong)


def test_a_recipe_overrides_what_the_catalogue_says() -> None:
    options = ApiOptions(model="gpt-4o-2024-08-06", base_url="https://gateway.example/v1/", price_input=1.0, context_length=9000)
    model = find_api_model("gpt-4o", options)
    assert (model.model, model.address, model.context_length) == ("gpt-4o-2024-08-06", "https://gateway.example/v1", 9000)
    assert model.cost(1e6, 1e6) == 1.0 + 10.0
    assert model.price_date == "as given"


def test_what_became_of_a_model_is_said_unless_the_recipe_names_another() -> None:
    assert "2026-10-23" in find_api_model("gpt-4").notice
    assert find_api_model("gpt-4", ApiOptions(model="gpt-9")).notice == ""
    assert find_api_model("gpt-4", ApiOptions(base_url="https://ours.example/v1")).notice == ""
    assert all(re.search(r"20\d\d-\d\d-\d\d", model.notice) for model in API_MODELS.values() if model.notice)


def test_a_base_url_makes_any_name_a_teacher_of_unknown_price(monkeypatch: pytest.MonkeyPatch) -> None:
    model = find_api_model("qwen3:8b", ApiOptions(base_url="http://localhost:11434/v1"))
    assert (model.model, model.cost(1, 1), model.key()) == ("qwen3:8b", None, "none")
    monkeypatch.setenv("TEACHER_BASE_URL", "http://gpu-box:8000/v1")
    assert find_api_model("mistral-small").address == "http://gpu-box:8000/v1"


def test_the_environment_moves_a_known_teacher_and_the_recipe_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://ours.openai.azure.com/openai/v1")
    assert find_api_model("gpt-4o").address == "https://ours.openai.azure.com/openai/v1"
    assert find_api_model("gpt-4o", ApiOptions(base_url="http://other/v1")).address == "http://other/v1"


def test_a_missing_key_names_its_variable_and_servers_on_this_machine_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"OpenAI wants an API key\n.*export OPENAI_API_KEY="):
        find_api_model("gpt-4o").key()
    assert find_api_model("gpt-4o", ApiOptions(base_url="http://127.0.0.1:1/v1")).key() == "none"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert find_api_model("gpt-4o").key() == "sk-secret"


def test_a_paid_key_is_not_sent_to_an_endpoint_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert find_api_model("mistral-small", ApiOptions(base_url="https://somewhere/v1")).key() == "none"


def test_the_identity_has_no_secret_and_tells_models_and_places_apart() -> None:
    def identity(base_url: str, model: str = "m") -> dict[str, str]:
        return find_api_model(model, ApiOptions(base_url=base_url)).identity

    secret = identity("https://user:password@host:8443/v1?api_key=abc#x")
    assert secret == {"protocol": "openai", "model": "m", "base_url": "https://host:8443/v1"}
    assert secret == identity("https://host:8443/v1/")
    assert secret != identity("https://other:8443/v1")
    assert secret != identity("https://host:8443/v1", "n")


def test_a_path_and_a_model_for_this_machine_are_no_api_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    none = ApiOptions()
    assert is_api_teacher("gpt-4o", none)
    assert not is_api_teacher("smollm2-135m-instruct", none)
    assert not is_api_teacher("owner/model", none)
    (tmp_path / "gpt-4o").mkdir()
    assert not is_api_teacher("gpt-4o", none)
    monkeypatch.setenv("TEACHER_BASE_URL", "http://gpu-box:8000/v1")
    assert is_api_teacher("owner/model", none)
    assert not is_api_teacher("smollm2-135m-instruct", none)
