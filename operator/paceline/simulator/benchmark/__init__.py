"""Many simulations, compared fairly: suites, tuning, frontiers, intervals and the report of `paceline benchmark`."""
