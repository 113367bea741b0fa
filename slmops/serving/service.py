"""One loaded model that answers chats one at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from slmops.data.chat import ChatTemplate
from slmops.errors import DataError
from slmops.progress import say
from slmops.runtimes.base import Generation, Runtime, Sampling
from slmops.serving.checks import ApiError
from slmops.serving.schemas import ChatRequest


@dataclass(frozen=True)
class Adapted:
    """A model with one of its adapters: the engine that answers with it, and how messages become its prompt."""

    runtime: Runtime
    chat_template: ChatTemplate


class ChatService:
    """Turns chats into prompts and runs them first come, first served, each with the adapter that it asks for.

    The model is only ever touched by one worker thread, because engines and tokenizers are not safe to share; the event
    loop stays free for other requests, whatever the model or a slow client does.

    Args:
        runtime: The loaded model.
        chat_template: Renders messages into its prompt.
        model_name: The name clients ask for.
        temperature: Where a request gives none.
        max_new_tokens: Most tokens of an answer where a request gives no limit; ``None``: what is left of the context.
        max_waiting: Requests that may wait for their turn; more are refused with 429.
        adapters: The same model with adapters, by the names clients ask for.
    """

    def __init__(
        self,
        runtime: Runtime,
        chat_template: ChatTemplate,
        model_name: str,
        *,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        max_waiting: int = 64,
        adapters: Mapping[str, Adapted] | None = None,
    ) -> None:
        self.info = runtime.info
        self.model_name = model_name
        self.created = int(time.time())
        self._started = time.monotonic()
        self._models = {**(adapters or {}), model_name: Adapted(runtime, chat_template)}
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._max_waiting = max_waiting
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="slmops-model")
        self._runs: set[Run] = set()

    @property
    def names(self) -> list[str]:
        """What clients may ask for: the model, then its adapters."""
        return [self.model_name, *(name for name in self._models if name != self.model_name)]

    @property
    def uptime(self) -> float:
        """Seconds since the model was loaded."""
        return time.monotonic() - self._started

    def check_model(self, name: str) -> None:
        """Raise ``ApiError`` 404, which names what is served, if ``name`` is something else."""
        if name not in self._models:
            known = ", ".join(map(repr, self.names))
            raise ApiError(404, f"there is no model {name!r} here; this server has {known}", param="model", code="model_not_found")

    def start(self, request: ChatRequest) -> Run:
        """Queue a chat; called from the event loop, returns at once.

        Raises:
            ApiError: Another model is asked for (404), or too many requests wait (429).
        """
        self.check_model(request.model)
        if sum(not run.cancelled for run in list(self._runs)) > self._max_waiting:
            raise ApiError(
                429,
                f"{self._max_waiting} requests are waiting already",
                code="queue_full",
                kind="rate_limit_error",
                headers={"retry-after": "1"},
            )
        run = Run(request)
        self._runs.add(run)
        self._worker.submit(self._answer, run)
        return run

    def interrupt(self) -> None:
        """End all requests, running or waiting, with an error (503)."""
        for run in list(self._runs):
            run.cancel()
            run.emit(ApiError(503, "the server is stopping", code="stopping", kind="server_error"))

    def close(self) -> None:
        """End all requests and, when it is done with its token, the worker thread."""
        self.interrupt()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _answer(self, run: Run) -> None:
        """In the worker thread: everything that touches the model."""
        try:
            if not run.cancelled:
                self._generate(run)
        except ApiError as error:
            run.emit(error)
        except DataError as error:  # of the template or the engine: messages they refuse, an empty prompt
            run.emit(ApiError(400, error.what, param="messages", code="invalid_value"))
        except Exception as error:
            # The log gets the stack but not the message, which may quote the chat; the client, who wrote it, gets both.
            say(f"a request failed: {type(error).__name__}\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip())
            run.emit(_failure(error))
        finally:
            self._runs.discard(run)

    def _generate(self, run: Run) -> None:
        model = self._models[run.request.model]
        prompt = model.chat_template.render([message.turn() for message in run.request.messages])
        sampling = self._sampling(run.request, len(model.runtime.tokenize(prompt)))
        prefixed = bool(model.chat_template.answer_prefix)
        begun = False
        for item in model.runtime.stream(prompt, sampling):
            if run.cancelled:
                return
            if isinstance(item, Generation):
                run.emit(replace(item, text=item.text.lstrip(" ")) if prefixed else item)
            elif piece := item if begun or not prefixed else item.lstrip(" "):
                begun = True
                run.emit(piece)

    def _sampling(self, request: ChatRequest, prompt_tokens: int) -> Sampling:
        context = self.info.context_length
        left = context - prompt_tokens
        asked = request.token_limit
        if left < 1 or (asked or 0) > left:
            answer = f" and the answer may have {asked}" if asked else ""
            raise ApiError(
                400,
                f"the prompt has {prompt_tokens} tokens{answer}, but this model's context holds {context} for both",
                param="messages",
                code="context_length_exceeded",
            )
        temperature = self._temperature if request.temperature is None else request.temperature
        top_p = 1.0 if request.top_p is None else request.top_p
        return Sampling(
            max_new_tokens=asked or min(left, self._max_new_tokens or left),
            # A nucleus of nothing is the most likely token, which engines call greedy.
            temperature=temperature if top_p > 0 else 0.0,
            top_p=top_p or 1.0,
            # Engines keep a seed in 31 bits; equal seeds stay equal.
            seed=None if request.seed is None else request.seed % 2**31,
            stop=tuple(request.stop),
        )


class Run:
    """One chat on its way: made in the event loop, filled by the worker thread, read in the event loop."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self._items: asyncio.Queue[str | Generation | ApiError] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the generation at its next token, or before it begins."""
        self._cancelled.set()

    def emit(self, item: str | Generation | ApiError) -> None:
        """From the worker thread: hand on a piece of text, the end or the failure."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended, so nobody reads
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self) -> str | Generation:
        """The next piece of text; the last item is the whole answer. A failure is raised as ``ApiError``."""
        item = await self._items.get()
        if isinstance(item, ApiError):
            raise item
        return item

    async def result(self) -> Generation:
        """The whole answer."""
        while not isinstance(item := await self.next(), Generation):
            pass
        return item


def _failure(error: Exception) -> ApiError:
    """A failing model fails again: clients are told not to retry."""
    return ApiError(
        500,
        f"the model failed: {type(error).__name__}: {error}",
        code="model_failed",
        kind="server_error",
        headers={"x-should-retry": "false"},
    )
