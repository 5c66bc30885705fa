"""The simulated world: traffic, engines, router, pods on nodes, and what a controller can see of them."""
