"""What is known of one run: its place, progress, failure and end."""
