"""What Paceline adds to an OpenAI server: readiness, drain, and exact counts of good and late requests.

Attached to stock vLLM through its plugin points (`endpoints`, `stats`, `middleware`), and to the emulated
engine by hand. Only `endpoints` and `stats` import vLLM; everything else runs without it.
"""
