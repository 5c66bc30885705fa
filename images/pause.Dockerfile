# The process that holds a pod's namespaces on the local cluster. Static; nothing else inside.
FROM scratch
COPY --from=programs busybox /busybox
USER 65535:65535
ENTRYPOINT ["/busybox", "sleep", "2147483647"]
