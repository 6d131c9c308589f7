"""Plans: from a run to its Dockerfile, its container and its turn in the queue. Pure."""
