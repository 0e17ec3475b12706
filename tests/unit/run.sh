#!/bin/sh
# Runs the unit tests given as arguments, two more at once than there are processors (or JOBS), since some wait;
# shows the output of those that fail. Closes with "N passed, N failed", counted in test
# functions; a program that ends badly without naming one counts as one.
set -u
if [ "${1:-}" = --one ]; then
	out=$2/$(echo "$3" | tr / _)
	CMOCKA_MESSAGE_OUTPUT=STDOUT "$3" >"$out" 2>&1
	rc=$?
	ok=$(grep -c '^\[       OK \]' "$out")
	bad=$(grep '^\[  FAILED  \]' "$out" | grep -vc 'test(s)')
	if [ $rc -ne 0 ] || [ "$ok" -eq 0 ]; then
		[ "$bad" -gt 0 ] || bad=1
		{ echo "# $3 (exit $rc)"; cat "$out"; } >"$out.failed"
	fi
	echo "$ok $bad" >"$out.count"
	exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '%s\n' "$@" | xargs -n 1 -P "${JOBS:-$(($(nproc) + 2))}" sh "$0" --one "$dir"
cat "$dir"/*.failed 2>/dev/null
cat "$dir"/*.count | awk -v programs=$# '
	{ passed += $1; failed += $2 }
	END {
		if (NR != programs)
			failed += programs - NR
		print passed " passed, " failed " failed"
		exit !(failed == 0 && passed > 0)
	}'
