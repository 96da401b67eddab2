# All privileged tests of the dataplane crate; only when named.

test_all() {
  cd /tmp
  failed=
  for program in /opt/eastwest/tests/*; do
    "$program" --test-threads 1 --include-ignored >/tmp/out 2>&1 </dev/null || failed="$failed ${program##*/}"
    cat /tmp/out
    note "${program##*/}: $(sed -n 's/^test result: //p' /tmp/out)"
  done
  [ -z "$failed" ] || die "failed:$failed"
}
