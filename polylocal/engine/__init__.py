"""The engine: what runs containers and builds images. `base` is the contract, `dockerengine` the real one."""
