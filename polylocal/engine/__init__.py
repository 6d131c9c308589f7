"""The container engine: the plan of a container, the contract of an engine, Docker and a fake as implementations."""
