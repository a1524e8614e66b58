"""Telemetry into figures that can be trusted."""
