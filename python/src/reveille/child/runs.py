"""The runs of a child: each job that the worker has given and that is not answered."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ..arguments import DoesNotFit
from ..current import CurrentJob, current
from ..errors import RequestFailed
from ..new_job import Enqueued
from ..tasks import Handler, callers
from . import answers
from .lines import LONGEST_LINE, Message, exit_with
from .streams import write_all

_MOST_REQUESTS = 32
# The time that tasks have to end after the end of standard input.
_LAST_MOMENTS = 3.0


class Runs:
    """Runs tasks. The loop's thread alone changes what is here, and writes to the worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handlers: Mapping[str, Handler],
        to: int,
        encrypts: Callable[[str], bool],
    ) -> None:
        self._loop, self._handlers, self._to, self._encrypts = loop, handlers, to, encrypts
        self._thread = threading.get_ident()
        self._threads: ThreadPoolExecutor | None = None
        self._open: dict[int, CurrentJob] = {}
        self._coroutines: dict[int, asyncio.Task[None]] = {}
        self._lines: list[str] = []
        self._progress: dict[int, str] = {}
        self._ended: deque[tuple[int, str]] = deque()
        self._requests: dict[int, Future[list[Enqueued]]] = {}
        self._waiting: deque[tuple[int, str, Future[list[Enqueued]]]] = deque()
        self._last_request = 0
        self._is_stopping = False
        # True once the worker is gone, so that answers have no reader.
        self.is_abandoned = False

    def take(self, messages: list[Message]) -> None:
        """Acts on messages of the worker."""
        for message in messages:
            try:
                self._take(message)
            except (KeyError, TypeError, ValueError) as error:
                exit_with(f"the worker wrote a broken message ({error!r}): {str(message)[:100]}")

    def _take(self, message: Message) -> None:
        match message["type"]:
            case "job":
                self._start(message)
            case "cancel":
                self._cancel(message["run"], message.get("reason", "cancelled"))
            case "answer":
                self._answered(message)
            case "stop":
                self._is_stopping = True
                self._leave_if_done()
            case "hello":
                if 1 not in message["versions"]:
                    exit_with(f"the worker speaks the versions {message['versions']} of the protocol, not 1")
                self._threads = ThreadPoolExecutor(max(message["slots"], 1), "reveille")
                self._write(answers.ready(sorted(self._handlers)))

    def abandon(self) -> None:
        """Stops all tasks without an answer: the worker is gone."""
        self.is_abandoned = not self._is_stopping or bool(self._open)
        for run in list(self._open):
            self._cancel(run, "shutdown")
        for future in [*self._requests.values(), *(waiting[2] for waiting in self._waiting)]:
            _fail(future, "the worker is gone")
        self._is_stopping = True
        self._loop.call_later(_LAST_MOMENTS, self._loop.stop)
        self._leave_if_done()

    # What running jobs call, in any thread: the methods of `reveille.current.Worker`.

    def progress(self, run: int, value: str) -> None:
        """Keeps the latest report of a run, and writes it soon."""
        self._progress[run] = value
        self._loop.call_soon_threadsafe(self._write_progress, run)

    def enqueue(self, run: int, jobs: str) -> Future[list[Enqueued]]:
        """Asks for jobs, at most 32 times at once."""
        future: Future[list[Enqueued]] = Future()
        self._loop.call_soon_threadsafe(self._request, run, jobs, future)
        return future

    def encrypts(self, kind: str) -> bool:
        """Returns true if the worker encrypts the jobs of this kind that it enqueues."""
        return self._encrypts(kind)

    def may_wait(self) -> bool:
        """Returns false in the loop's thread."""
        return threading.get_ident() != self._thread

    # All that follows runs in the loop's thread, but for `_work_in_thread`.

    def _start(self, message: Message) -> None:
        run = message["run"]
        if "unreadable" in message:
            error = f"Python cannot read it: {message['unreadable']}"
            self._write(answers.ended(run, DoesNotFit(error), None))
            return
        handler = self._handlers.get(message["kind"])
        if handler is None or self._threads is None:
            self._write(answers.ended(run, LookupError(f"no task has the kind {message['kind']!r}"), None))
            return
        job = self._open[run] = CurrentJob(message, self)
        if handler.is_async:
            self._coroutines[run] = self._loop.create_task(self._work(run, handler, job))
        else:
            context = contextvars.copy_context()
            self._threads.submit(context.run, self._work_in_thread, run, handler, job)

    async def _work(self, run: int, handler: Handler, job: CurrentJob) -> None:
        current.set(job)
        try:
            line = answers.done(run, await callers[-1](handler, job.payload), job.transaction)
        except BaseException as error:
            line = answers.ended(run, error, job.stop_reason)
        self._coroutines.pop(run, None)
        self._end(run, line)

    def _work_in_thread(self, run: int, handler: Handler, job: CurrentJob) -> None:
        current.set(job)
        try:
            line = answers.done(run, callers[-1](handler, job.payload), job.transaction)
        except BaseException as error:
            line = answers.ended(run, error, job.stop_reason)
        self._ended.append((run, line))
        try:
            self._loop.call_soon_threadsafe(self._end_next)
        except RuntimeError:
            pass  # The loop has stopped, because the worker is gone.

    def _end_next(self) -> None:
        while self._ended:
            self._end(*self._ended.popleft())

    def _end(self, run: int, line: str) -> None:
        self._write_progress(run)
        del self._open[run]
        self._write(line)
        self._leave_if_done()

    def _cancel(self, run: int, reason: str) -> None:
        job = self._open.get(run)
        if job is None:
            return  # The cancel has crossed with the answer.
        job.stop(reason)
        if coroutine := self._coroutines.get(run):
            # Not at once: a coroutine that was cancelled before its first step would never answer.
            self._loop.call_soon(coroutine.cancel)

    def _write_progress(self, run: int) -> None:
        value = self._progress.pop(run, None)
        if value is not None and run in self._open:
            self._write(answers.progress(run, value))

    def _request(self, run: int, jobs: str, future: Future[list[Enqueued]]) -> None:
        if future.cancelled():
            return  # The task was stopped while the request waited.
        if self.is_abandoned:
            _fail(future, "the worker is gone")
        elif len(self._requests) >= _MOST_REQUESTS:
            self._waiting.append((run, jobs, future))
        else:
            self._last_request += 1
            line = answers.enqueue(self._last_request, run, jobs)
            if len(line) > LONGEST_LINE // 4 and len(line.encode()) > LONGEST_LINE:
                _fail(future, f"the jobs have more than {LONGEST_LINE} bytes of JSON; enqueue fewer at once")
                return
            self._requests[self._last_request] = future
            self._write(line)

    def _answered(self, message: Message) -> None:
        future = self._requests.pop(message["request"], None)
        if future is not None and not future.cancelled():
            if message.get("error") is not None:
                _fail(future, message["error"])
            else:
                future.set_result([Enqueued(job["id"], job["existed"]) for job in message["result"]])
        while self._waiting and len(self._requests) < _MOST_REQUESTS:
            self._request(*self._waiting.popleft())

    def _leave_if_done(self) -> None:
        if self._is_stopping and not self._open:
            # The loop first writes the lines that are left.
            self._loop.call_soon(self._loop.stop)

    def _write(self, line: str) -> None:
        """Writes a line together with the others of this round of the loop."""
        if not self._lines:
            self._loop.call_soon(self._flush)
        self._lines.append(line)

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if self.is_abandoned or not lines:
            return
        lines.append("")
        try:
            write_all(self._to, "\n".join(lines).encode())
        except BrokenPipeError:
            pass  # The worker is gone; the end of standard input says so, too.

    def flush(self) -> None:
        """Writes the lines that are left when the loop has stopped."""
        self._flush()


def _fail(future: Future[list[Enqueued]], error: str) -> None:
    if not future.done():
        future.set_exception(RequestFailed(error))


def exit_soon(seconds: float, status: int) -> None:
    """Ends the process after this time, although threads of the application may still run."""
    timer = threading.Timer(seconds, os._exit, [status])
    timer.daemon = True
    timer.start()
