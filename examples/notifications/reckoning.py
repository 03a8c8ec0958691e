"""Whether everything came out right: each function returns one sentence for each thing that did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import attrs
from app import Message
from mail_server import Mail

from graphile_worker_py import Job, JobInfo


@attrs.frozen
class Comparison:
    """The mails that should have arrived beside those that did: how many of each kind, and which."""

    expected: int
    delivered: int
    missing: list[str]
    duplicated: list[str]
    unexpected: list[str]

    def problems(self) -> list[str]:
        """Return a sentence for each mail that is not accounted for."""
        named = {"missing": self.missing, "duplicated": self.duplicated, "unexpected": self.unexpected}
        return [f"{kind}: {mail}" for kind, mails in named.items() for mail in mails]


def compare(messages: Iterable[Message], mails: Iterable[Mail]) -> Comparison:
    """Compare messages with mails: each has to have reached its recipient once, with the text it had."""
    sent = Counter((message["id"], message["to"], message["text"]) for message in messages)
    arrived = Counter((mail.id, mail.to, mail.text) for mail in mails)
    too_many = arrived - sent
    return Comparison(
        expected=sent.total(),
        delivered=(sent & arrived).total(),
        missing=[f"{id} for {to}" for id, to, _ in (sent - arrived).elements()],
        duplicated=[f"{id} for {to}" for id, to, text in too_many.elements() if (id, to, text) in sent],
        unexpected=[f"{id} for {to}" for id, to, text in too_many.elements() if (id, to, text) not in sent],
    )


def out_of_order(chapters: Iterable[Message], mails: Iterable[Mail]) -> list[str]:
    """Check that the mails of the serial queue were sent in order, and never two at a time."""
    ids = [chapter["id"] for chapter in chapters]
    sent = sorted((mail for mail in mails if mail.id in ids), key=lambda mail: mail.began)
    problems = [
        f"{after.id} began before {before.id} had ended"
        for before, after in pairwise(sent)
        if after.began < before.ended
    ]
    if [mail.id for mail in sent] != ids:
        problems.append(f"the serial queue ran in the order {', '.join(mail.id for mail in sent)}")
    return problems


def too_early(reminder: Message, mails: Iterable[Mail], not_before: float) -> list[str]:
    """Check that the delayed mail did not arrive before its time (time.monotonic)."""
    early = [not_before - mail.began for mail in mails if mail.id == reminder["id"] and mail.began < not_before]
    return [f"the delayed job ran {seconds:.3f} s too early" for seconds in early]


def wrongly_failed(invited: Job, failed: Iterable[JobInfo]) -> list[str]:
    """Check that the one job that had to fail for good has failed, and no other."""
    problems = [f"job {job.id} failed for good: {job.last_error}" for job in failed if job.id != invited.id]
    if invited.id not in [job.id for job in failed]:
        problems.append(f"job {invited.id}, which had to fail for good, is not listed as failed")
    return problems


def unbalanced(counts: Mapping[str, int], refused: int) -> list[str]:
    """Check that the books balance: every job has one end, every attempt one outcome, every refusal another try."""
    ended = counts["completed"] + counts["failed for good"]
    accounts = [
        ("jobs added, jobs ended", counts["added"], ended),
        ("attempts run, attempts with an outcome", counts["run"], ended + counts["retried"]),
        ("mails refused, items retried", refused, counts["items retried"]),
        ("jobs lost to another worker, none", counts["lost"], 0),
    ]
    return [f"the books do not balance: {what}: {one}, {other}" for what, one, other in accounts if one != other]
