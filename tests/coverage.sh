#!/bin/sh
# How many lines of the codec (appliance/dmtp) ran, from the counters in $1/obj/appliance/dmtp that tests have left:
# a line for each file, and before it what didn't run when VERBOSE is set. Fails when less than $2 per cent did.
set -eu
build=$1 least=$2
for notes in "$build"/obj/appliance/dmtp/*.gcno; do
	gcov -t -r -o "${notes%/*}" "$notes" 2>/dev/null
done | awk -F: -v least="$least" -v verbose="${VERBOSE:-}" '
# "count:number:text": a count of "-" is no code, of "#####" or "=====" did not run.
function told(name, all, missed) {
	if (all > 0)
		printf "%-34s %5d lines %7.2f %%\n", name, all, 100 * (all - missed) / all
}
$2 + 0 == 0 && $3 == "Source" {
	told(file, all, missed)
	all = missed = 0
	file = $4
	wanted = file ~ /^appliance\/dmtp\/.*\.c$/
	next
}
!wanted || $1 !~ /[0-9#=]/ { next }
{ all++; lines++ }
$1 ~ /[#=]/ {
	missed++
	missing++
	if (verbose) {
		text = $0
		sub(/^[^:]*:[^:]*:/, "", text)
		print file ":" $2 + 0 ":" text
	}
}
END {
	told(file, all, missed)
	told("appliance/dmtp", lines, missing)
	if (lines == 0 || 100 * (lines - missing) / lines < least) {
		print "less than " least " %"
		exit 1
	}
}'
