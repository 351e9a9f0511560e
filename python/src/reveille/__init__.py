"""Reveille: a job queue that lives in Postgres. Enqueue on the connection that you have; work jobs with your functions.

    @reveille.task(queue="mail", max_attempts=5, timeout=30)
    def send_welcome(user_id: int) -> None: ...

    send_welcome.enqueue(connection, user_id=7)     # in the transaction of the connection

    $ python -m reveille app.tasks --queue mail=32
"""

from .current import CurrentJob, current_job
from .enqueuing import enqueue, enqueue_many
from .errors import InvalidJob, Lost, Permanent, RequestFailed, Retry, Snooze
from .new_job import Enqueued, NewJob
from .tasks import Task, task

__all__ = [
    "CurrentJob",
    "Enqueued",
    "InvalidJob",
    "Lost",
    "NewJob",
    "Permanent",
    "RequestFailed",
    "Retry",
    "Snooze",
    "Task",
    "current_job",
    "enqueue",
    "enqueue_many",
    "task",
]
