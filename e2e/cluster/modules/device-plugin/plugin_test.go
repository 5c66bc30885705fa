package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// kubelet is the half of a kubelet that a device plugin talks to.
type kubelet struct {
	v1beta1.UnimplementedRegistrationServer
	registered chan *v1beta1.RegisterRequest
	server     *grpc.Server
}

func startKubelet(t *testing.T, folder string) *kubelet {
	t.Helper()
	k := &kubelet{registered: make(chan *v1beta1.RegisterRequest, 4), server: grpc.NewServer()}
	listener, err := net.Listen("unix", filepath.Join(folder, kubeletSocket))
	if err != nil {
		t.Fatal(err)
	}
	v1beta1.RegisterRegistrationServer(k.server, k)
	go func() { _ = k.server.Serve(listener) }()
	t.Cleanup(k.server.Stop)
	return k
}

func (k *kubelet) Register(_ context.Context, asked *v1beta1.RegisterRequest) (*v1beta1.Empty, error) {
	k.registered <- asked
	return &v1beta1.Empty{}, nil
}

func (k *kubelet) await(t *testing.T) *v1beta1.RegisterRequest {
	t.Helper()
	select {
	case asked := <-k.registered:
		return asked
	case <-time.After(10 * time.Second):
		t.Fatal("not registered within 10 s")
		return nil
	}
}

func dial(t *testing.T, folder string) v1beta1.DevicePluginClient {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+filepath.Join(folder, socketName),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return v1beta1.NewDevicePluginClient(connection)
}

func TestEveryDeviceIsOfferedAndAnAllocationSaysThatItIsFake(t *testing.T) {
	folder := t.TempDir()
	k := startKubelet(t, folder)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go keepOffering(ctx, folder, "nvidia.com/gpu", 8)

	asked := k.await(t)
	if asked.ResourceName != "nvidia.com/gpu" || asked.Endpoint != socketName || asked.Version != v1beta1.Version {
		t.Fatalf("registered as %v", asked)
	}
	client := dial(t, folder)
	stream, err := client.ListAndWatch(ctx, &v1beta1.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil || len(list.Devices) != 8 {
		t.Fatalf("devices: %v, %v", list, err)
	}
	answer, err := client.Allocate(ctx, &v1beta1.AllocateRequest{ContainerRequests: []*v1beta1.ContainerAllocateRequest{
		{DevicesIds: []string{"fake-gpu-0", "fake-gpu-3"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	envs := answer.ContainerResponses[0].Envs
	if envs["PACELINE_FAKE_GPUS"] != "true" || envs["NVIDIA_VISIBLE_DEVICES"] != "fake-gpu-0,fake-gpu-3" {
		t.Fatalf("environment: %v", envs)
	}
}

func TestARestartedKubeletIsRegisteredWithAgain(t *testing.T) {
	folder := t.TempDir()
	first := startKubelet(t, folder)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go keepOffering(ctx, folder, "nvidia.com/gpu", 1)
	first.await(t)

	first.server.Stop()
	// A kubelet that starts empties its folder of plugins before it listens.
	_ = os.Remove(filepath.Join(folder, socketName))
	second := startKubelet(t, folder)
	second.await(t)
	if _, err := dial(t, folder).GetDevicePluginOptions(ctx, &v1beta1.Empty{}); err != nil {
		t.Fatalf("the plugin does not answer after the second registration: %v", err)
	}
}

func TestTheKubeletMayStartAfterThePlugin(t *testing.T) {
	folder := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go keepOffering(ctx, folder, "nvidia.com/gpu", 1)
	time.Sleep(200 * time.Millisecond)
	startKubelet(t, folder).await(t)
}
