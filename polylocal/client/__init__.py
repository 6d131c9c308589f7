"""The client side of the API: HTTP, and packing code for upload."""
