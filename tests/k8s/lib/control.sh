# The control plane, in the network namespace `cp`. Sourced by ../cluster.

# service NAME CMD…: in the background, apart from this terminal, its output in $state/NAME.log.
service() {
  local log=$state/$1.log pid=$state/$1.pid
  shift
  setsid nsenter --net="/run/netns/$ns-cp" -- "$@" >>"$log" 2>&1 </dev/null &
  echo $! >"$pid"
}

# kubeconfig FILE TOKEN
kubeconfig() {
  cat >"$1" <<END
apiVersion: v1
kind: Config
clusters: [{name: k8s, cluster: {server: "$api", certificate-authority: $state/certs/apiserver.crt}}]
users: [{name: user, user: {token: $2}}]
contexts: [{name: k8s, context: {cluster: k8s, user: user}}]
current-context: k8s
END
}

api_start() {
  local etcd=http://127.0.0.1:2379
  if [ ! -f "$state/sa.key" ]; then
    mkdir -p "$state/etcd" "$state/certs"
    openssl genrsa -out "$state/sa.key" 2048 2>/dev/null
    openssl rsa -in "$state/sa.key" -pubout -out "$state/sa.pub" 2>/dev/null
    {
      echo 'admin,admin,admin,"system:masters"'
      nodes | sed 's/.*/&,system:node:&,&,"system:nodes"/'
    } >"$state/tokens.csv"
    kubeconfig "$state/admin.conf" admin
  fi
  service etcd "$state/bin/etcd" --name e --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls $etcd --advertise-client-urls $etcd \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster e=http://127.0.0.1:2380
  wait_for 60 etcd in_net cp curl -fsm 2 $etcd/health
  service apiserver "$state/bin/kube-apiserver" --etcd-servers=$etcd --secure-port=6443 --bind-address=0.0.0.0 \
    --advertise-address=10.77.0.10 --cert-dir="$state/certs" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$state/sa.pub" --service-account-signing-key-file="$state/sa.key" \
    --authorization-mode=Node,RBAC --anonymous-auth=false --token-auth-file="$state/tokens.csv" \
    --service-cluster-ip-range=$service_cidrs --kubelet-preferred-address-types=InternalIP --allow-privileged=true
  wait_for 120 "API server" kubectl get --raw /readyz
}

api_kill() {
  kill -9 "$(cat "$state/apiserver.pid")" "$(cat "$state/etcd.pid")"
}

controllers_start() {
  local as=(--kubeconfig="$state/admin.conf" --authentication-kubeconfig="$state/admin.conf"
    --authorization-kubeconfig="$state/admin.conf" --leader-elect=false --bind-address=127.0.0.1 --cert-dir="$state/certs")
  service controller-manager "$state/bin/kube-controller-manager" "${as[@]}" --root-ca-file="$state/certs/apiserver.crt" \
    --service-account-private-key-file="$state/sa.key" --allocate-node-cidrs=false --cluster-cidr=$pod_cidrs
  service scheduler "$state/bin/kube-scheduler" "${as[@]}"
  # The world outside: no name exists there, and saying so is quick.
  printf '.:53 {\n bind 10.77.0.10\n template ANY ANY {\n rcode NXDOMAIN\n }\n}\n' >"$state/outside.conf"
  service outside "$state/bin/coredns" -conf "$state/outside.conf"
}
