# The real controller, agents and pods: two nodes in network namespaces of the emulated machine. 5-virtio-net goes on
# with the same lab.

test_lab_comes_up() { cluster; }

# Without TCX the programs are filters of clsact. The NIC is a veth, where `auto` takes generic XDP: what its native
# mode sends out is lost unless the peer has a program too. 5-virtio-net has the native mode.
test_hooks() {
  state=$(eastwest get nodestates -o json)
  echo "$state"
  echo "$state" | grep -q '"mode": *"clsact"' || die "no device is hooked by clsact"
  echo "$state" | grep -q '"mode": *"xdp-generic"' || die "no NIC is hooked by generic XDP"
  ! echo "$state" | grep '"error"' || die "a device has an error: $(echo "$state" | grep -m1 '"error"')"
}

test_http() { both_pods caller http "$vip4" "[$vip6]"; }
test_udp() { both_pods caller udp "$vip4" "[$vip6]"; }

test_name() { ask caller http web 1; }

# A process on the node is translated at its socket.
test_host_process() { both_pods node-1 http "$vip4" "[$vip6]"; }
test_host_process_udp() { both_pods node-1 udp "$vip4" "[$vip6]"; }

test_outside_client() { both_pods client http "$vip4" "[$vip6]"; }

# A port that the Service does not have: refused at once (curl 7), not timed out (curl 28).
test_refused() {
  for where in caller node-1; do
    for address in "$vip4" "[$vip6]"; do
      status=0
      eastwest lab exec "$where" -- curl -sS -g --max-time 5 "http://$address:81/" || status=$?
      same "curl's exit code at $where for $address" "$status" 7
    done
  done
}

# The filters stay while no agent runs, and the next one takes them over in place.
test_agent_restarts_under_traffic() {
  (
    failed=0 sent=0
    until [ -e /tmp/stop ]; do
      ask caller http "$vip4" 1 >/dev/null || failed=$((failed + 1))
      sent=$((sent + 1))
    done
    echo "$failed of $sent failed" >/tmp/traffic
  ) &
  traffic=$!
  sleep 1
  eastwest lab kill agent node-1
  sleep 1
  eastwest lab start agent node-1
  sleep 1
  touch /tmp/stop
  wait "$traffic"
  note "$(cat /tmp/traffic)"
  case $(cat /tmp/traffic) in '0 of 0 '*) die "nothing sent" ;; '0 of '*) ;; *) die "$(cat /tmp/traffic)" ;; esac
}
