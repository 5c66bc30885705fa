"""What `make demo` runs: from nothing to the answer of a model on a real cluster, and where to look next.

    where     which cluster: one that you named, or the local one, brought up here
    watch     what `kubectl get` says while the service becomes Ready
    question  one chat completion, streamed, read to its end
    tour      the steps in order, with their times

It must not do anything that a user could not do with helm, kubectl and curl.
"""
