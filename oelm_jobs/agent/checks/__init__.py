"""Looking over a target before runs are sent to it."""
