"""Candidate and champion on the same held-out frames and worlds."""
