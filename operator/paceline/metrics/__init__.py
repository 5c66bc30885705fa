"""Turns PromQL answers into the planner's observation, with the age, samples and trust of every figure."""
