"""Replays traffic against a GPU timing model and drives the same planner as the cluster, beside rival policies."""
