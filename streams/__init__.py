"""What happens to an event, in flow order."""
