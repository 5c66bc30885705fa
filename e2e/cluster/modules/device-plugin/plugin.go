package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	socketName    = "paceline-fake-gpu.sock"
	kubeletSocket = "kubelet.sock"
	// How soon a restarted kubelet is noticed; until then it counts zero devices.
	lookEvery = time.Second
)

type plugin struct {
	v1beta1.UnimplementedDevicePluginServer
	devices []*v1beta1.Device
	ended   context.Context
}

func (p *plugin) GetDevicePluginOptions(context.Context, *v1beta1.Empty) (*v1beta1.DevicePluginOptions, error) {
	return &v1beta1.DevicePluginOptions{}, nil
}

// ListAndWatch says once that every device is healthy and then holds the stream: the kubelet takes its
// end for the plugin's death and counts the devices out.
func (p *plugin) ListAndWatch(_ *v1beta1.Empty, stream v1beta1.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&v1beta1.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-p.ended.Done():
	}
	return nil
}

func (p *plugin) Allocate(_ context.Context, asked *v1beta1.AllocateRequest) (*v1beta1.AllocateResponse, error) {
	answer := &v1beta1.AllocateResponse{}
	for _, container := range asked.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &v1beta1.ContainerAllocateResponse{
			Envs: map[string]string{
				"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ","),
				"PACELINE_FAKE_GPUS":     "true",
			},
		})
	}
	return answer, nil
}

// offer serves the plugin and registers it, until the context ends, the server fails, or the kubelet's
// socket is another one: a kubelet that restarts forgets every plugin and deletes its socket.
func offer(ctx context.Context, folder, resource string, count int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	socket := filepath.Join(folder, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	p := &plugin{ended: ctx}
	for i := range count {
		p.devices = append(p.devices, &v1beta1.Device{ID: fmt.Sprintf("fake-gpu-%d", i), Health: v1beta1.Healthy})
	}
	server := grpc.NewServer()
	v1beta1.RegisterDevicePluginServer(server, p)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer server.Stop()

	kubelet, err := os.Stat(filepath.Join(folder, kubeletSocket))
	if err != nil {
		return err
	}
	if err := register(ctx, folder, resource); err != nil {
		return err
	}
	slog.Info("registered", "resource", resource, "devices", count)

	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("serve %s: %w", socket, err)
		case <-look.C:
			now, err := os.Stat(filepath.Join(folder, kubeletSocket))
			if err != nil || !os.SameFile(kubelet, now) || !now.ModTime().Equal(kubelet.ModTime()) {
				return errors.New("the kubelet's socket changed: registering again")
			}
			if _, err := os.Stat(socket); err != nil {
				return errors.New("our socket is gone: registering again")
			}
		}
	}
}

func register(ctx context.Context, folder, resource string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+filepath.Join(folder, kubeletSocket),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	_, err = v1beta1.NewRegistrationClient(connection).Register(ctx, &v1beta1.RegisterRequest{
		Version:      v1beta1.Version,
		Endpoint:     socketName,
		ResourceName: resource,
		Options:      &v1beta1.DevicePluginOptions{},
	})
	return err
}
