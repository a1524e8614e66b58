"""Where a policy is computed."""
