"""Logs, secrets, archives, disk usage, and safe access to folders that containers write."""
