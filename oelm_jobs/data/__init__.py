"""Token files: making, reading and checking them."""
