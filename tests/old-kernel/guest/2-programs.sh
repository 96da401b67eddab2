# The kernel's verifier takes every program of the object, and the hooks they need are there.
pins=/sys/fs/bpf/object

test_verifier_takes_every_program() {
  rm -rf "$pins"
  if ! bpftool prog loadall /opt/eastwest/eastwest.bpf.o "$pins" >/tmp/load 2>&1; then
    grep -v '^$' /tmp/load | tail -n 40
    die "$(grep -m1 -E "failed to load|^libbpf: prog '" /tmp/load || tail -n1 /tmp/load)"
  fi
  for name in pod_ingress_xdp pod_ingress_tc pod_egress_tc nic_ingress_xdp nic_ingress_tc nic_egress_tc \
    connect4 connect6 sendmsg4 sendmsg6 recvmsg4 recvmsg6 getpeername4 getpeername6; do
    test -e "$pins/$name" || die "no program $name"
    note "$name: $(bpftool prog show pinned "$pins/$name" | grep -oE 'xlated [0-9]+B')"
  done
}

test_clsact() {
  ip link add veth0 type veth peer name veth1
  tc qdisc add dev veth0 clsact
  tc filter add dev veth0 ingress prio 1 handle 1 bpf direct-action object-pinned "$pins/pod_ingress_tc"
  tc filter add dev veth0 egress prio 1 handle 1 bpf direct-action object-pinned "$pins/pod_egress_tc"
  tc filter show dev veth0 ingress | grep -q pod_ingress_tc
  tc filter show dev veth0 egress | grep -q pod_egress_tc
  ip link delete veth0
}

test_xdp_native_on_virtio_net() {
  ip link set eth0 up
  ip link set eth1 up
  bpftool net attach xdpdrv pinned "$pins/nic_ingress_xdp" dev eth0
  ip -details link show dev eth0 | grep -q 'prog/xdp id' || { ip -details link show dev eth0; die "no native program on eth0"; }
  bpftool net detach xdpdrv dev eth0
}
