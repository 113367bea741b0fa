"""The HTTP face: routes, server-sent events and error bodies. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from slmops.runtimes.base import Generation
from slmops.serving.checks import ApiError, read_request
from slmops.serving.schemas import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Health,
    LabelLogProb,
    LabelLogProbs,
    LogProb,
    ModelCard,
    ModelList,
    Usage,
)
from slmops.serving.service import ChatService, Run

MAX_BODY_BYTES = 8 * 2**20

T = TypeVar("T")


def create_app(service: ChatService) -> FastAPI:
    """The application that serves one model, with its adapters; who opened the service closes it.

    Routes: ``POST /v1/chat/completions``, ``GET /v1/models``, ``GET /v1/models/{id}``, ``GET /health``. There are no
    documentation pages, because FastAPI's load scripts from the network.
    """
    app = FastAPI(title="slmops", openapi_url=None, docs_url=None, redoc_url=None)
    cards = {name: ModelCard(id=name, created=service.created) for name in service.names}

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        run = service.start(read_request(await _body(request)))
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": run.request.model}
        try:
            if run.request.stream:
                first = await _while_connected(request, run.next())
                return _EventStream(run, _frames(run, first, head))
            answer = await _while_connected(request, run.result())
        except BaseException:
            run.cancel()
            raise
        message = AnswerMessage(content=answer.text)
        choice = Choice(message=message, logprobs=_logprobs(answer), finish_reason=answer.finish_reason)
        return _json(ChatCompletion(**head, choices=[choice], usage=_usage(answer)))

    @app.get("/v1/models")
    async def models() -> Response:
        return _json(ModelList(data=[*cards.values()]))

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.check_model(name)
        return _json(cards[name])

    @app.get("/health")
    async def health() -> Response:
        info = service.info
        return _json(Health(model=service.model_name, runtime=info.name, precision=info.precision, uptime=round(service.uptime, 3)))

    app.exception_handler(ApiError)(_refused)
    app.exception_handler(HTTPException)(_no_such_route)
    app.exception_handler(ClientDisconnect)(_client_gone)
    app.exception_handler(Exception)(_broken)
    return app


class _EventStream(StreamingResponse):
    """Server-sent events of a run; when it ends, however it ends, so does the run."""

    def __init__(self, run: Run, frames: AsyncIterator[str]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(frames, headers=headers, media_type="text/event-stream")
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.cancel()


async def _frames(run: Run, item: str | Generation, head: dict[str, Any]) -> AsyncIterator[str]:
    """The frames of a stream, whose first item is there already; a failure is the last frame, without ``[DONE]``."""
    wants_usage = run.request.wants_usage

    def chunk(*choices: ChunkChoice, usage: Usage | None = None) -> str:
        value = ChatChunk(**head, choices=list(choices), usage=usage).model_dump()
        if not wants_usage:
            del value["usage"]
        return _frame(value)

    yield chunk(ChunkChoice(delta={"role": "assistant", "content": ""}))
    try:
        while not isinstance(item, Generation):
            yield chunk(ChunkChoice(delta={"content": item}))
            item = await run.next()
    except ApiError as error:
        yield _frame(error.body.model_dump())
        return
    yield chunk(ChunkChoice(delta={}, finish_reason=item.finish_reason))
    if wants_usage:
        yield chunk(usage=_usage(item))
    yield "data: [DONE]\n\n"


def _frame(value: dict[str, Any]) -> str:
    # ASCII only: clients that split lines as Python does would break a frame at U+2028 or U+0085.
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"the body has more than {MAX_BODY_BYTES} bytes", code="request_too_large")
    return bytes(body)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, or ``ClientDisconnect`` as soon as nobody waits for it."""

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    wanted, gone = asyncio.create_task(work), asyncio.create_task(hang_up())
    try:
        await asyncio.wait({wanted, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ClientDisconnect
        return wanted.result()
    finally:
        wanted.cancel()
        gone.cancel()


def _logprobs(answer: Generation) -> LabelLogProbs | None:
    """Of the labels, the likeliest first, where the answer is one of a classification head's."""
    if answer.probabilities is None:
        return None
    ordered = sorted(answer.probabilities.items(), key=lambda one: -one[1])
    labels = [LogProb(token=label, logprob=math.log(max(share, 1e-30))) for label, share in ordered]
    return LabelLogProbs(content=[LabelLogProb(**labels[0].model_dump(), top_logprobs=labels)])


def _usage(answer: Generation) -> Usage:
    count = len(answer.token_ids)
    return Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=count, total_tokens=answer.prompt_tokens + count)


def _json(value: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(value.model_dump(), status, headers)


async def _refused(request: Request, error: Any) -> Response:
    return _json(error.body, error.status, error.headers)


async def _no_such_route(request: Request, error: Any) -> Response:
    refusal = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code="unknown_url")
    return _json(refusal.body, error.status_code, dict(error.headers or {}))


async def _client_gone(request: Request, error: Any) -> Response:
    return Response(status_code=499)  # nginx's word for it; nobody reads it


async def _broken(request: Request, error: Exception) -> Response:
    return _json(ApiError(500, "the server has an error; its log says more", code="internal_error", kind="server_error").body, 500)
