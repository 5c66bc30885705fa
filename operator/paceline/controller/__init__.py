"""The only place that talks to the Kubernetes API: it looks, asks `fleet` what to do, and does it.

    kopf watch streams ──> Watch ──> ClusterCache ──┐
                             │                      v
                             └──> WorkQueue ──> Reconciler ── plan(observed) ──> Writer ──> API server
                                                    ^                              │
                                     Lease (fence): every write asks it first <────┘

State lives in the cluster alone: a process that is killed at any point is replaced by one that lists, plans
and goes on. Nothing here decides what a service should look like; that is `paceline.fleet`, which is pure.
"""
