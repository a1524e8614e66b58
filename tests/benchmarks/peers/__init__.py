"""Loops that others would write. They know nothing of Fleetwheel but its wire format, and import only what
their own environment holds (requirements/peer-*.txt)."""
