#!/bin/sh
# Fails when a room includes against the arrows, or when a library is included
# outside the one room that may know it. The arrows stand in the Makefile.
set -u
cd "$(dirname "$0")/.." || exit 2
bad=0
sees() {
	sed -n "s/^SEES_$1[ ]*:= *//p" Makefile
}
include='^[[:blank:]]*#[[:blank:]]*include[[:blank:]]*'
for room in appliance/*/; do
	room=$(basename "$room")
	allowed=" $(sees "$room") "
	for line in $(grep -HnE "$include\"" appliance/"$room"/*.[ch] 2>/dev/null | tr -d ' \t'); do
		target=$(echo "$line" | sed -n 's/.*#include"\([a-z]*\)\/[a-z_0-9]*\.h".*/\1/p')
		case "$allowed" in
		*" $target "*) ;;
		*) echo "layers: $room must not include ${target:-this} (a header is named \"room/file.h\"): $line"; bad=1 ;;
		esac
	done
done
only() { # only HEADER-PATTERN ROOM...: the pattern stands nowhere else
	pattern=$1
	shift
	for file in $(grep -lE "$include(<([a-z0-9.]+/)*|\")$pattern" appliance/*.c appliance/*/*.[ch] 2>/dev/null); do
		room=$(basename "$(dirname "$file")")
		case " $* " in
		*" $room "*) ;;
		*) echo "layers: <$pattern> belongs to $*, not to $file"; bad=1 ;;
		esac
	done
}
only 'libpq-fe' store
only 'microhttpd' web
only 'jwt\.h' web
only 'event2/' net
only 'openssl/ssl' net
only 'ares\.h' net
only 'curl/' net
only 'confuse\.h' base
only 'gmime/' home
# What C alone brings, and what computes: no system calls, no clock, no threads.
pure='(assert|ctype|errno|inttypes|limits|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|strings|sodium|utf8proc|idn2|jansson)'
for file in $(grep -HE "$include<" appliance/dmtp/*.[ch] 2>/dev/null | grep -vE "include[[:blank:]]*<$pure\.h>" | cut -d: -f1 | sort -u); do
	echo "layers: dmtp is pure, without system calls: $file"
	bad=1
done
# The rooms meet in one program: a global name belongs to one of them.
libs=${BUILD:-build}/lib
if ls "$libs"/*.a >/dev/null 2>&1; then
	for name in $(nm -g --defined-only "$libs"/*.a 2>/dev/null | awk '$2 ~ /[TDBR]/ {print $3}' | sort | uniq -d); do
		echo "layers: two rooms define $name"
		bad=1
	done
fi
[ $bad -eq 0 ] && echo "layers: ok"
exit $bad
