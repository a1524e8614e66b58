"""Where a job's step runs."""
