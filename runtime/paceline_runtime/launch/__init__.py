"""From the container's arguments to a running engine: checks, model files, vLLM's arguments, its process."""
