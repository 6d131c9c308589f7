"""Processes with limits, cancellation, network addresses and proxies."""
