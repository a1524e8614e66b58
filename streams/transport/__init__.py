"""Records to and from topics."""
