"""The local cluster: a real Kubernetes, brought up and taken down by ``python -m e2e.cluster``.

Where a Docker engine and a kind node image are at hand it is kind; else real nodes from binaries that are
built here once. Called by the Makefile, the e2e scenarios and people. It must not leave anything behind
after ``down`` but its cache.
"""
