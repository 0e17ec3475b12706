#!/bin/sh
# Prints where tests are to put their databases and files. Memory, when the system has a file system in it with much
# room: no test asks whether a disk keeps what it synced, and dozens of databases on a disk cost minutes. TMPDIR names
# another place.
set -u
memory=/dev/shm need=$((6 * 1024 * 1024)) # KiB
if [ -n "${TMPDIR:-}" ]; then
	echo "$TMPDIR"
elif [ -w $memory ] && [ -k $memory ] && ! findmnt -no OPTIONS -T $memory 2>/dev/null | grep -qw noexec &&
	[ "$(df -Pk $memory 2>/dev/null | awk 'NR == 2 { print $4 }')" -ge $need ] 2>/dev/null &&
	[ "$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)" -ge $need ]; then
	echo $memory
else
	echo /tmp
fi
