"""The errors of a node: what stops it before, beside or instead of its command."""

from __future__ import annotations


class NodeError(Exception):
    """The node cannot go on; the message says what is wrong and what to do next.

    ``victim`` is True when the cause lies on another node.
    """

    def __init__(self, message: str, *, victim: bool = False) -> None:
        super().__init__(message)
        self.victim = victim


class Stopped(BaseException):
    """The node was told to stop before its command ran; no ``Exception``, so that nothing swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
