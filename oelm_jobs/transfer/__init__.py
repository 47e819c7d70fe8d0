"""Results home, data out, disk freed."""
