"""The gate: the one door of a service.

It stands before `vllm-router` in every router pod, lets only OpenAI routes through, checks API keys, holds
requests while no engine is there, passes answers through byte by byte, and keeps the router's list of
workers equal to the Ready engine pods. It never decides which engine answers: that is the router's part.
"""
