# A node whose NIC is a real driver's: virtio_net. One card takes the place of node-1's NIC, the other that of its cable's
# end at the fabric, so every packet in or out of node-1 goes through the emulated hardware. Pods are hooked the other way
# than in 4-lab: by generic XDP, which node-1's agent changes to when it starts again.
node=ew-lab-node-1 fabric=ew-lab-fabric
state=/run/eastwest/lab/lab/state.json

# The card with this hardware address, whatever its name is now.
card() { ip -o link show | grep "$1" | sed -E 's/^[0-9]+: ([^:@]+).*/\1/'; }

# Native, not xdpgeneric.
hooked() { ip -n "$node" -details link show dev eth0 | grep -q 'prog/xdp id'; }

pods_by_xdp() { eastwest get nodestates node-1 -o json | grep -qE '"mode": *"xdp-generic"'; }

# Sum over the driver's receive queues.
xdp_packets() {
  eastwest lab exec node-1 -- ethtool -S eth0 |
    sed -n 's/^ *rx_queue_[0-9]*_xdp_packets: //p' | awk '{ n += $1 } END { print n + 0 }'
}

test_node_on_virtio_net() {
  if [ -e "$state" ]; then
    grep -qE '"podHook": *"tc"' "$state"
    sed -i -E 's/("podHook": *)"tc"/\1"xdp"/' "$state"
    eastwest lab restart agent node-1
  else
    cluster --pod-hook xdp
  fi
  ip -n "$node" -o address show dev eth0 scope global | sed -E 's/.* inet6? ([^ ]+).*/\1/' >/tmp/addresses
  # The others know the node by it.
  mac=$(ip -n "$node" -o link show dev eth0 | sed -E 's/.*link\/ether ([0-9a-f:]+).*/\1/')
  # Those by the NIC, and those of pods, which name its address as their source: they go with it.
  for family in -4 -6; do
    ip -n "$node" "$family" route show | grep -vE 'proto kernel|^blackhole' >"/tmp/routes$family"
  done
  ip -n "$fabric" link delete node-1
  ip link set "$(card 02:00:00:00:00:01)" netns "$node" name eth0
  ip link set "$(card 02:00:00:00:00:02)" netns "$fabric" name node-1
  ip -n "$node" link set eth0 address "$mac"
  ip -n "$fabric" link set node-1 master br0 up
  while read -r address; do
    case $address in
      *:*) ip -n "$node" address add "$address" dev eth0 nodad ;;
      *) ip -n "$node" address add "$address" dev eth0 ;;
    esac
  done </tmp/addresses
  ip -n "$node" link set eth0 up
  for family in -4 -6; do
    while read -r route; do
      # shellcheck disable=SC2086  # a route is several words
      ip -n "$node" "$family" route replace $route
    done <"/tmp/routes$family"
  done
  eventually 10 hooked
  eventually 30 pods_by_xdp
}

# From a pod of node-1: the packets for web-2 leave by virtio_net after the translation at the pod's device.
test_pod_through_virtio_net() {
  both_pods caller http "$vip4" "[$vip6]"
  both_pods caller udp "$vip4" "[$vip6]"
}

# From outside to the virtual IP routed to node-1: native XDP on virtio_net translates, passes to web-1, sends on to web-2.
test_outside_client_through_native_xdp() {
  before=$(xdp_packets)
  both_pods client http "$vip4" "[$vip6]"
  both_pods client udp "$vip4" "[$vip6]"
  after=$(xdp_packets)
  note "$(eastwest lab exec node-1 -- ethtool -S eth0 | grep -E 'xdp_(packets|tx|redirects|drops)' | tr -s ' \n' ' ')"
  [ "$after" -gt "$before" ] || die "no packet met XDP in the driver"
}

test_lab_goes_down() {
  eastwest lab down
  same "namespaces left" "$(ip netns list)" ""
}
