"""Settings of a small project of Django."""

import os
from typing import Any
from urllib.parse import urlsplit

import django

_url = urlsplit(os.environ.get("SHOP_DATABASE_URL", ""))
SECRET_KEY = "of a test"
INSTALLED_APPS = ["tests.shop"] if django.VERSION >= (6,) else []
USE_TZ = True
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.lstrip("/"),
        "USER": _url.username,
        "PASSWORD": _url.password,
        "HOST": _url.hostname,
        "PORT": _url.port,
    }
}
if not _url.hostname:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
_BACKEND: dict[str, Any] = {
    "BACKEND": "reveille.django.ReveilleBackend",
    "QUEUES": ["default", "mail"],
    "OPTIONS": {"max_attempts": 1},
}
TASKS = {
    "default": _BACKEND,
    "encrypted": _BACKEND | {"OPTIONS": {"max_attempts": 1, "encrypted": True}},
}
