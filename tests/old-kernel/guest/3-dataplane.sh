# Privileged tests of the dataplane crate on this kernel. Most load all programs anew, which takes long in emulation: those
# stand here that meet what an old kernel does otherwise. `ARGS=3-dataplane-all` runs all of them.

# crate PROGRAM [TEST]
crate() {
  cd /tmp
  "/opt/eastwest/tests/$1" --test-threads 1 --include-ignored ${2:+--exact "$2"} >/tmp/out 2>&1 || { cat /tmp/out; die "$1 ${2:-} failed"; }
  grep -qE '^test result: ok\. [1-9]' /tmp/out || die "$1 has no test ${2:-}"
}

test_clsact_filters() { crate clsact; }
test_every_vector_as_on_the_host() { crate vectors kernel_and_host_agree_on_every_case; }
test_nic_by_tc() { crate kernel nic::clients_outside_are_served_by_tc; }
test_vlan() { crate kernel nic::an_uplink_that_is_a_vlan; }
test_two_tags() { crate kernel nic::an_uplink_with_two_tags; }
test_bond() { crate kernel nic::an_uplink_that_is_a_bond; }
test_sctp_by_tc() { crate kernel sctp::associations_by_tc; }
test_sctp_by_xdp() { crate kernel sctp::associations_by_xdp; }
test_what_a_refused_process_is_told() { crate retval; }
