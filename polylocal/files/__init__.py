"""Files and folders: what the daemon reads, writes and unpacks."""
