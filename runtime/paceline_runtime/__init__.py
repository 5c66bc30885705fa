"""What runs in Paceline's pods: the launcher of stock vLLM, its plugins, the gate and the emulated engine."""
