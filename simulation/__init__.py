"""Simulated roads, traffic, cameras and a privileged expert: where a policy is taught and examined."""
