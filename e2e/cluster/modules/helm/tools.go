//go:build tools

// Package helm pins the installer that puts the chart into a cluster.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
