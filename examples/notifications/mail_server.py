"""A mail server that is as difficult as real ones: slow, busy for some people at first, and unaware of others."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes, policy
from typing import Any

import attrs
from aiosmtpd.controller import Controller

SECONDS_PER_MAIL = 0.05


@attrs.frozen
class Mail:
    """A mail as it arrived, with the times between which the server was busy taking it in (time.monotonic)."""

    id: str
    to: str
    text: str
    began: float
    ended: float


class MailServer:
    """Take mails in and keep them. `busy` says who is turned away at first, and how often; `unknown` who always is."""

    def __init__(self, *, busy: Mapping[str, int], unknown: Collection[str]) -> None:
        self.mails: list[Mail] = []
        self.refused: Counter[str] = Counter()  # by address, and only those who may try again
        self._busy = busy
        self._unknown = unknown

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """Answer whether mail to an address is welcome; called by aiosmtpd."""
        if address in self._unknown:
            return "550 5.1.1 no such user here"
        if self.refused[address] < self._busy.get(address, 0):
            self.refused[address] += 1
            return "451 4.7.1 busy, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a mail, once for each recipient; called by aiosmtpd."""
        began = time.monotonic()
        await asyncio.sleep(SECONDS_PER_MAIL)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        for address in envelope.rcpt_tos:
            self.mails.append(Mail(mail["Message-ID"], address, text_of(mail), began, time.monotonic()))
        return "250 OK"


def text_of(mail: Any) -> str:
    """Return the text of a mail, without the line ends that depend on how it travelled."""
    return "\n".join(mail.get_content().splitlines())


class _AnyPort(Controller):
    """A controller that lets the system choose the port, so that none can be taken by somebody else in between."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def running(server: MailServer) -> Iterator[tuple[str, int]]:
    """Run the server in a thread; yields its host and port."""
    controller = _AnyPort(server, hostname="127.0.0.1", port=0, server_hostname="localhost")
    controller.start()
    try:
        yield controller.hostname, controller.port
    finally:
        controller.stop()
