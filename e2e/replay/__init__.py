"""Forty minutes of traffic on the real cluster, and what the simulator said of them before.

    python -m e2e.replay traffic --requests FILE      the traffic that is played, and what it is
    python -m e2e.replay predict --requests FILE      what the simulator says of it, into `predictions/`
    make e2e-replay                                   plays it on the cluster and compares (`test_replay.py`)
    python -m e2e.replay plot FOLDER --out PNG        the picture of a run, anew

Simulator, cluster and judging share one scene (`scene.py`) and one traffic (`traffic.py`).
"""
