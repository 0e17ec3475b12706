#!/bin/sh
# Prints the numbered migrations as C: store/migrate.h declares what this makes.
set -eu
echo '#include "store/migrate.h"'
n=0
for file in "$@"; do
	n=$((n + 1))
	printf 'static const unsigned char sql_%d[] = {' $n
	od -An -v -tx1 "$file" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'
	echo '0 };'
done
echo 'const struct migration migrations[] = {'
n=0
for file in "$@"; do
	n=$((n + 1))
	name=$(basename "$file" .sql)
	number=$(echo "$name" | sed 's/^0*\([0-9]*\).*/\1/')
	printf '\t{ .number = %d, .name = "%s", .sql = (const char *)sql_%d },\n' "$number" "$name" $n
done
echo '};'
printf 'const size_t migrations_count = %d;\n' $n
