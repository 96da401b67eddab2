# A node: containerd and a kubelet in namespaces of their own, inside the node's network namespace. Sourced by ../cluster.

# Every hierarchy of control groups: on a machine with version 1 there are several, and perhaps a cgroup2 beside them.
cgroup_mounts() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }

cgroup2_mount() { awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts; }

cgroups_up() { # CGROUP
  local mount group
  for mount in $(cgroup_mounts); do
    group=$mount/$1
    mkdir -p "$group"
    if [ -f "$mount/cpuset.cpus" ]; then # version 1: without these no process may enter
      cat "$mount/cpuset.cpus" >"$group/cpuset.cpus"
      cat "$mount/cpuset.mems" >"$group/cpuset.mems"
    fi
  done
}

cgroups_down() {
  local mount group
  for mount in $(cgroup_mounts); do
    for group in "$mount/$ns-"*; do
      [ -d "$group" ] || continue
      # The processes were killed; the kernel may still be at it.
      for _ in $(seq 100); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
      done
    done
  done
}

node_start() { # NODE
  local node=$1 dir=$state/$1 i=${1#n} part
  mkdir -p "$dir"/{var-lib-kubelet,var-lib-containerd,var-lib-cni,var-log-pods,var-log-containers,run-containerd,proc,cni}
  cgroups_up "$ns-$node"
  sed "s/@I@/$i/g" "$here/node/pods.conflist" >"$dir/cni/10-pods.conflist"
  sed "s|@DIR@|$dir|g" "$here/node/containerd.toml" >"$dir/containerd.toml"
  sed "s|@DIR@|$dir|g; s|@CGROUP@|/$ns-$node|g" "$here/node/kubelet.yaml" >"$dir/kubelet.yaml"
  echo 'nameserver 10.77.0.10' >"$dir/resolv.conf"
  install -m 755 "$here/node/runc" "$dir/runc"
  rm -rf "$dir"/run-containerd/* "$dir/booted"
  setsid nsenter --net="/run/netns/$ns-$node" -- \
    unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc --propagation private \
    "$here/node/init" "$node" "$i" "$dir" "$ns-$node" "$state" >>"$dir/init.log" 2>&1 </dev/null &
  local outer=$!
  wait_for 30 "$node" pgrep -P $outer
  pgrep -P $outer >"$dir/init.pid"
}

# The node enters the cluster: its object first, with the addresses of its pods, as the pods' network is laid out by hand.
node_join() { # NODE
  local node=$1 i=${1#n}
  kubectl create -f - >/dev/null <<END
apiVersion: v1
kind: Node
metadata: {name: $node, labels: {kubernetes.io/hostname: $node, topology.kubernetes.io/zone: zone-$((i % 2 + 1))}}
spec: {podCIDR: 10.244.$i.0/24, podCIDRs: [10.244.$i.0/24, "fd00:244:0:$i::/64"]}
END
  kubeconfig "$state/$node/kubelet.conf.new" "$node"
  mv "$state/$node/kubelet.conf.new" "$state/$node/kubelet.conf" # its init waits for this
  wait_for 120 "images on $node" test -f "$state/$node/booted"
}

# As a process of the node: in its part of cgroup2 too, where programs may be attached.
node_exec() { # NODE CMD…
  (
    echo $BASHPID >"$(cgroup2_mount)/$ns-$1/cgroup.procs"
    exec nsenter -t "$(cat "$state/$1/init.pid")" --net --mount --uts --ipc --pid -- "${@:2}"
  )
}

node_crash() { # NODE
  local pid
  pid=$(cat "$state/$1/init.pid")
  kill -9 "$pid"
  wait_for 30 "end of $1" test ! -d "/proc/$pid"
}
