"""The engine over the Docker API."""
