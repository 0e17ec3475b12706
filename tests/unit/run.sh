#!/bin/sh
# Runs the unit tests given as arguments; shows the output of those that fail.
# Closes with "N passed, N failed", counted in test functions.
set -u
passed=0 failed=0 broken=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for bin in "$@"; do
	CMOCKA_MESSAGE_OUTPUT=STDOUT "$bin" >"$out" 2>&1
	rc=$?
	ok=$(grep -c '^\[       OK \]' "$out")
	bad=$(grep '^\[  FAILED  \]' "$out" | grep -vc 'test(s)')
	passed=$((passed + ok))
	failed=$((failed + bad))
	if [ $rc -ne 0 ] || [ "$ok" -eq 0 ]; then
		[ "$bad" -eq 0 ] && broken=$((broken + 1))
		echo "# $bin (exit $rc)"
		cat "$out"
	fi
done
echo "$passed passed, $((failed + broken)) failed"
[ $((failed + broken)) -eq 0 ] && [ "$passed" -gt 0 ]
