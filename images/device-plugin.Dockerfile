# The local cluster's fake GPUs (e2e/cluster/modules/device-plugin), static. It runs as root, as every
# device plugin does: the kubelet's socket is root's.
FROM scratch
COPY --from=programs device-plugin /device-plugin
ENTRYPOINT ["/device-plugin"]
