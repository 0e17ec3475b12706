#!/bin/sh
# Fails when an option of the configuration is missing from deploy/tmtp.conf.sample, stands
# there with another default or in another section, or is missing from README.md's table (as
# `section.option`, or `option` outside of sections) or has another default there.
# `options.sh table` prints the options as a table for README.md instead.
set -u
cd "$(dirname "$0")/.." || exit 2
program=${TMTPD:-build/tmtpd}
tab=$(printf '\t')
list=$("$program" --list-config) || { echo "options: cannot run $program"; exit 2; }
[ -n "$list" ] || { echo "options: $program lists nothing"; exit 2; }

if [ "${1:-}" = table ]; then
	echo '| option | default | meaning |'
	echo '|---|---|---|'
	echo "$list" | awk -F '\t' '{ gsub(/\|/, "\\|"); printf "| `%s` | `%s` | %s |\n", $1, $3, $4 }'
	exit 0
fi

# name<TAB>default of each commented option of the sample, sections by their braces
sample() {
	sed 's/^#\([\tr}]\)/\1/' deploy/tmtp.conf.sample | awk '
		/^[a-z_]+ .*\{$/ { section = $1 "."; next }
		/^\}/ { section = ""; next }
		/^\t?#?[a-z_0-9]+ = / {
			line = $0
			sub(/^\t?#?/, "", line)
			at = index(line, " = ")
			print section substr(line, 1, at - 1) "\t" substr(line, at + 3)
		}'
}

bad=0
have=$(sample)
while IFS="$tab" read -r name _ default _; do
	if ! echo "$have" | cut -f1 | grep -qxF "$name"; then
		echo "options: deploy/tmtp.conf.sample lacks $name"
		bad=1
	elif ! echo "$have" | grep -qxF "$name$tab$default"; then
		echo "options: deploy/tmtp.conf.sample has another default for $name than $default"
		bad=1
	fi
	if ! grep -qF "| \`$name\` |" README.md 2>/dev/null; then
		echo "options: README.md's table lacks \`$name\`"
		bad=1
	elif ! grep -qF "| \`$name\` | \`$default\` |" README.md; then
		echo "options: README.md's table has another default for $name than $default"
		bad=1
	fi
done <<END
$list
END
while read -r name; do
	if ! echo "$list" | cut -f1 | grep -qxF "$name"; then
		echo "options: deploy/tmtp.conf.sample has $name, which does not exist"
		bad=1
	fi
done <<END
$(echo "$have" | cut -f1 | sort -u)
END
[ $bad -eq 0 ] && echo "options: ok ($(echo "$list" | wc -l) options)"
exit $bad
