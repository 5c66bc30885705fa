# The local cluster's DNS: our build of CoreDNS (e2e/cluster/modules/coredns), static.
FROM scratch
COPY --from=programs coredns /coredns
USER 65532:65532
ENTRYPOINT ["/coredns"]
