"""The operating system and the network: processes, cancellation, addresses, proxies."""
