"""What clients fetch, send, find and remove on a target."""
