"""The project's code, as it is sent to targets."""
