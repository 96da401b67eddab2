# The wires: a bridge in the control plane's namespace, and a veth from it to each node and to `client`, a machine outside the
# cluster. Sourced by ../cluster.

our_namespaces() { find /run/netns -maxdepth 1 -name "$ns-*" -printf '%f\n' 2>/dev/null | sort; }

network_up() { # COUNT
  local cp=$ns-cp i j
  ip netns add "$cp"
  ip -n "$cp" link set lo up
  ip -n "$cp" link add br0 type bridge
  ip -n "$cp" addr add 10.77.0.10/24 dev br0
  ip -n "$cp" addr add fd00:77::10/64 dev br0 nodad
  ip -n "$cp" link set br0 up
  forwarding cp
  plug client 100
  for i in $(seq "$1"); do
    plug "n$i" "1$i"
    forwarding "n$i"
    ip -n "$cp" route add "10.244.$i.0/24" via "10.77.0.1$i"
    ip -n "$cp" route add "fd00:244:0:$i::/64" via "fd00:77::1$i"
  done
  for i in $(seq "$1"); do
    for j in $(seq "$1"); do
      [ "$i" != "$j" ] || continue
      ip -n "$ns-n$i" route add "10.244.$j.0/24" via "10.77.0.1$j"
      ip -n "$ns-n$i" route add "fd00:244:0:$j::/64" via "fd00:77::1$j"
    done
  done
}

# plug NAME HOST: a machine on the bridge, with the control plane as its router.
plug() {
  local machine=$ns-$1
  ip netns add "$machine"
  ip -n "$machine" link set lo up
  ip -n "$ns-cp" link add "$1" type veth peer name eth0 netns "$machine"
  ip -n "$ns-cp" link set "$1" master br0 up
  ip -n "$machine" addr add "10.77.0.$2/24" dev eth0
  ip -n "$machine" addr add "fd00:77::$2/64" dev eth0 nodad
  ip -n "$machine" link set eth0 up
  ip -n "$machine" route add default via 10.77.0.10
  ip -n "$machine" route add default via fd00:77::10
}

forwarding() { in_net "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'; }

network_down() {
  local space
  for space in $(our_namespaces); do
    ip netns del "$space"
  done
}
