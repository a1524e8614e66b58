"""Engines carry bytes and state; they decide nothing."""
