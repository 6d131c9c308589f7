"""What a run becomes: its image, its container, its turn in the queue. Pure."""
