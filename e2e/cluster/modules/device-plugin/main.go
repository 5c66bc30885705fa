// A device plugin that offers GPUs which do not exist, so that the real kubelet and the real scheduler
// place and refuse pods by nvidia.com/gpu on a machine without one.
//
// It runs as a DaemonSet of the local cluster and of nothing else. It hands a container no device: only
// the environment that NVIDIA's plugin would set, and a variable that says the GPUs are fake.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	resource := flag.String("resource", "nvidia.com/gpu", "the extended resource to offer")
	count := flag.Int("count", 8, "how many devices this node offers")
	folder := flag.String("folder", "/var/lib/kubelet/device-plugins", "the kubelet's folder of device plugin sockets")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	keepOffering(ctx, *folder, *resource, *count)
}

// keepOffering offers the devices until the context ends, again whenever an offer has ended.
func keepOffering(ctx context.Context, folder, resource string, count int) {
	for ctx.Err() == nil {
		if err := offer(ctx, folder, resource, count); err != nil {
			slog.Warn("offer ended", "error", err)
		}
		// A kubelet that starts wipes the folder and takes registrations a moment later.
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
