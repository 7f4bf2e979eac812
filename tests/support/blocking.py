"""Calls that may wait for a file system, watched for where they are made."""

import threading
from collections.abc import Callable
from typing import Any

import pytest


def calls_on_the_loop(monkeypatch: pytest.MonkeyPatch, *watched: tuple[Any, str]) -> list[str]:
    """The names of those that the main thread makes from now on; each is an owner's attribute."""
    found: list[str] = []
    for owner, name in watched:
        monkeypatch.setattr(owner, name, _watched(getattr(owner, name), name, found))
    return found


def _watched(plain: Callable[..., Any], name: str, found: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            found.append(name)
        return plain(*args, **kwargs)

    return call
