# The kernel is an old one and has what eastwest stands on.

test_kernel_is_older_than_tcx() {
  release=$(uname -r)
  note "kernel $release"
  case $release in 5.1[5-9]* | 6.[0-5].*) ;; *) die "kernel $release is not an old one" ;; esac
}

test_filesystems() {
  grep -q ' /sys/fs/bpf bpf ' /proc/mounts
  grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts
  mkdir /sys/fs/cgroup/try
  rmdir /sys/fs/cgroup/try
  test -r /sys/kernel/btf/vmlinux
  same "net.core.bpf_jit_enable" "$(cat /proc/sys/net/core/bpf_jit_enable)" 1
}

test_namespaces_and_veths() {
  ip netns add a
  ip netns add b
  ip link add veth0 netns a type veth peer name veth0 netns b
  ip -n a address add 192.0.2.1/30 dev veth0
  ip -n b address add 192.0.2.2/30 dev veth0
  ip -n a address add 2001:db8::1/64 dev veth0 nodad
  ip -n b address add 2001:db8::2/64 dev veth0 nodad
  ip -n a link set veth0 up
  ip -n b link set veth0 up
  ip netns exec a ping -c 1 -W 5 192.0.2.2
  ip netns exec a ping -c 1 -W 5 2001:db8::2
  ip netns delete a
  ip netns delete b
}

# Two cards, each other's only peer: what a node's NIC is to the next.
test_virtio_net() {
  for device in eth0 eth1; do
    readlink "/sys/class/net/$device/device/driver" | grep -q virtio_net || die "$device is not of virtio_net"
  done
  for side in 0 1; do
    ip netns add "n$side"
    ip link set "eth$side" netns "n$side"
    ip -n "n$side" address add "192.0.2.$((side + 1))/30" dev "eth$side"
    ip -n "n$side" link set "eth$side" up
  done
  ip netns exec n0 ping -c 1 -W 5 192.0.2.2
  # Back to the first namespace, as it is hardware.
  ip netns delete n0
  ip netns delete n1
  eventually 5 test -e /sys/class/net/eth1
}
