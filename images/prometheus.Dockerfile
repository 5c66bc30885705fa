# The local cluster's Prometheus (e2e/cluster/modules/prometheus), static. Elsewhere, prom/prometheus does.
FROM scratch
COPY --from=programs prometheus /prometheus
USER 65532:65532
ENTRYPOINT ["/prometheus"]
