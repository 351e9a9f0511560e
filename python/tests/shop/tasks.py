"""Tasks of a small project of Django."""

from typing import Any

from django.db import connection
from django.dispatch import receiver
from django.tasks import TaskContext, task
from django.tasks.signals import task_finished, task_started


@receiver([task_started, task_finished])
def note(**_: Any) -> None:
    # Django refuses this in an event loop, in which async tasks run.
    connection.ensure_connection()


@task(queue_name="mail", priority=10)
def welcome(name: str, times: int = 1) -> str:
    with connection.cursor() as cursor:
        cursor.execute("select current_database()")
    return " ".join([f"welcome, {name}"] * times)


@task(takes_context=True)
async def count(context: TaskContext, *numbers: int) -> dict[str, Any]:
    return {"sum": sum(numbers), "attempt": context.attempt}


@task
def fails() -> None:
    raise ValueError("of no use")
