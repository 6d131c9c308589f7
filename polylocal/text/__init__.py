"""Safe handling of untrusted text: JSON with limits, non-finite numbers, control characters."""
