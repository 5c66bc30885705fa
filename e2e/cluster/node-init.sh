#!/bin/bash
# The first process of one node: pid 1 of its own pid, mount, network and host name namespaces.
# Killing it is pulling the node's plug: the kernel ends every process, mount and link in there.
#
# Environment: NODE ADDRESS GATEWAY ROUTES HOME_DIR BINARIES LABELS CGROUP
set -eu

hostname "$NODE"
mount --make-rshared /                     # pods may ask for mount propagation
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/containerd
bind() { mkdir -p "$1" "$2"; mount --bind "$1" "$2"; }
bind "$HOME_DIR/kubelet" /var/lib/kubelet
bind "$HOME_DIR/containerd" /var/lib/containerd
bind "$HOME_DIR/cni" /etc/cni/net.d
bind "$HOME_DIR/pod-logs" /var/log/pods
bind "$HOME_DIR/container-logs" /var/log/containers
mkdir -p /var/lib/cni && mount -t tmpfs tmpfs /var/lib/cni

# One control group for the pods, one for the node's own programs: the kubelet measures both, and what starts
# here shall not count against, or end with, the session that typed `up`.
for controller in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e "$controller/cgroup.procs" ] || continue
    mkdir -p "$controller$CGROUP" "$controller$CGROUP-system"
    # A cpuset of v1 begins without a core.
    case "$controller" in */cpuset*) continue ;; esac
    echo $$ > "$controller$CGROUP-system/cgroup.procs"
done

# The machine plugs the cable in from outside.
for _ in $(seq 100); do [ -e /proc/sys/net/ipv4/conf/eth0 ] && break; sleep 0.05; done
ip link set lo up
ip addr add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
for route in $ROUTES; do ip route add "${route%@*}" via "${route#*@}"; done
echo 1 > /proc/sys/net/ipv4/ip_forward

log() { echo "$(date +%T) $NODE: $*"; }
keep() {
    name=$1; shift
    while true; do
        "$@" >> "$HOME_DIR/log/$name.log" 2>&1 || true
        log "$name ended; starting it again"
        sleep 1
    done
}
await_containerd() {
    for _ in $(seq 400); do ctr version >/dev/null 2>&1 && return; sleep 0.05; done
    log "containerd does not answer; see containerd.log"
    exit 1
}

keep containerd containerd --config "$HOME_DIR/etc/containerd.toml" --log-level warn &
await_containerd
left=$(ctr -n k8s.io containers ls -q)
if [ -n "$left" ]; then
    log "removing $(echo "$left" | wc -l) containers of a former life"
    echo "$left" | xargs -r ctr -n k8s.io containers rm
    rm -f /run/containerd/containerd.sock
    kill "$(pidof containerd)"              # its CRI part remembers them until it starts again
    await_containerd
fi
log "containerd answers"
touch /run/containerd-is-clean

# The machine imports the images before it lets the kubelet start.
while [ ! -e /run/start-kubelet ]; do sleep 0.05; done
keep kubelet "$BINARIES/kubelet" --config "$HOME_DIR/etc/kubelet.yaml" --kubeconfig "$HOME_DIR/etc/kubelet.kubeconfig" \
    --hostname-override "$NODE" --node-ip "$ADDRESS" --node-labels "$LABELS" &
keep kube-proxy "$BINARIES/kube-proxy" --config "$HOME_DIR/etc/kube-proxy.yaml" &
log "kubelet and kube-proxy are kept"
while true; do wait -n || sleep 1; done     # bash reaps every orphan of the namespace meanwhile
