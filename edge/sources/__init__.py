"""Where camera frames and signals come from."""
