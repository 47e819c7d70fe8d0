"""What the trainer does on this machine's GPUs: whether it is right there, and how fast (``make check-gpu``)."""
