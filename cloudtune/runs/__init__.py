"""Runs that exist: one that is looked at, watched, waited for, cancelled and deleted; and how one is found."""

from __future__ import annotations

from cloudtune.lines import label
from cloudtune.places import client_of
from cloudtune.runs.finding import get, runs
from cloudtune.runs.run import Run, RunList, age, run_of

__all__ = ["Run", "RunList", "age", "client_of", "get", "label", "run_of", "runs"]
