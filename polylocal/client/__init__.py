"""The client of the API: HTTP requests, and packing code for uploads."""
