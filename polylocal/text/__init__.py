"""Text from outside, made safe: bounded JSON, numbers that are not finite, visible characters."""
