"""The REST API: writes rows, and reads rows and files."""
