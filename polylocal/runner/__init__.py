"""The runner: reads rows and drives the engine."""
