"""The agent on the vehicle: leaves only, no torch."""
