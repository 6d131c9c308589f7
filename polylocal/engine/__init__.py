"""The container engine: the plan of a container, the contract of an engine, and Docker as its implementation."""
