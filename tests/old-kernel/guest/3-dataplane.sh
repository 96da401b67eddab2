# The dataplane crate's own privileged tests, on this kernel.

test_crate_tests() {
  cd /tmp
  failed=
  for program in /opt/eastwest/tests/*; do
    name=${program##*/}
    if timeout 120 "$program" --test-threads 1 >/tmp/out 2>&1; then
      note "$name: $(sed -n 's/^test result: ok\. \([0-9]* passed\).*/\1/p' /tmp/out)"
    else
      failed="$failed $name"
      tail -n 60 /tmp/out
    fi
  done
  [ -z "$failed" ] || die "failed:$failed"
}
