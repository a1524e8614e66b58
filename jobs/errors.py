"""Errors of jobs, named by the reaction they ask for."""

from __future__ import annotations


class JobError(Exception):
    """Anything that jobs raise on purpose."""


class StepRetry(JobError):
    """The step may succeed when it is run again: a busy medium, a killed process."""


class StepFailed(JobError):
    """The step can never succeed as it is asked: the job ends with the verdict "error" and this as the reason."""


class JobBusy(JobError):
    """Another worker is running this job: leave it to that one."""
