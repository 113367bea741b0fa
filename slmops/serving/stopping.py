"""A uvicorn server that ends as an ordinary program does: answers finish or are told why not, and the exit status is 0."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from slmops.serving.app import create_app
from slmops.serving.service import ChatService

GRACE_SECONDS = 5.0


class StoppableServer(uvicorn.Server):
    """Serves a service until the first SIGINT or SIGTERM.

    Answers under way then have ``GRACE_SECONDS`` to finish; after that, or at a second signal, they end with an error.
    """

    def __init__(self, service: ChatService) -> None:
        self._service = service
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                # For what no longer reads its connection; ours ends a little earlier and without a traceback.
                timeout_graceful_shutdown=int(GRACE_SECONDS) + 2,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal. Unlike uvicorn's own, the signal is not raised again when all is done."""
        if self.should_exit:
            self._service.interrupt()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and wait for the answers under way."""
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._service.interrupt)
        await super().shutdown(sockets)
