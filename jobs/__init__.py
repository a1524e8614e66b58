"""Learning: a request in, a tested, signed release out."""
