//go:build tools

// Package prometheus pins the Prometheus that the local cluster runs: Debian's own build of it has no
// Kubernetes discovery. It is built with the tags that leave every other discovery out, for which
// `go mod tidy` must not be used here (it wants the modules of all of them); instead:
//
//	GOFLAGS=-tags=remove_all_sd,enable_kubernetes_sd go get github.com/prometheus/prometheus/cmd/prometheus@VERSION
package prometheus

import _ "github.com/prometheus/prometheus/cmd/prometheus"
