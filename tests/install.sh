#!/bin/sh
# What `make install` installs, and that its parts name each other where they are: the unit its
# program, the pages each other, the manuals without an error. Into folders of its own, for two
# prefixes; as root also the account and the directories, as systemd makes them.
set -u
cd "$(dirname "$0")/.." || exit 2
build=${BUILD:-build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
wrong() {
	echo "install: $*"
	bad=1
}

files() { # of a prefix
	cat <<-END
		$1/bin/tmtpctl
		$1/lib/systemd/system/tmtpd.service
		$1/lib/sysusers.d/tmtp.conf
		$1/lib/tmpfiles.d/tmtp.conf
		$1/sbin/tmtpd
		$1/share/bash-completion/completions/tmtpctl
		$1/share/doc/tmtp/CHANGELOG.md
		$1/share/doc/tmtp/CONTRIBUTING.md
		$1/share/doc/tmtp/LICENSE
		$1/share/doc/tmtp/README.md
		$1/share/doc/tmtp/appliance/dmtp/PROTOCOL.md
		$1/share/doc/tmtp/appliance/home/API.md
		$1/share/doc/tmtp/appliance/panel/API.md
		$1/share/doc/tmtp/appliance/site/API.md
		$1/share/doc/tmtp/deploy/README.md
		$1/share/doc/tmtp/deploy/tmtp.conf.sample
		$1/share/doc/tmtp/nginx.conf.sample
		$1/share/doc/tmtp/schema/README.md
		$1/share/doc/tmtp/schema/roles.sql
		$1/share/doc/tmtp/tests/STATEMENTS.md
		$1/share/doc/tmtp/tests/bench/README.md
		$1/share/doc/tmtp/tests/chaos/README.md
		$1/share/doc/tmtp/tests/conformance/README.md
		$1/share/doc/tmtp/tests/e2e/ADVERSARY.md
		$1/share/doc/tmtp/tests/vectors/README.md
		$1/share/doc/tmtp/tmtp.conf.sample
		$1/share/man/man1/tmtpctl.1
		$1/share/man/man5/tmtp.conf.5
		$1/share/man/man8/tmtpd.8
	END
}

for prefix in /usr/local /usr; do
	to=$dir$prefix.d
	make -s install BUILD="$build" DESTDIR="$to" PREFIX="$prefix" >/dev/null || { wrong "PREFIX=$prefix fails"; continue; }
	files "$prefix" >"$dir/want"
	(cd "$to" && find . -type f | sed 's/^\.//' | LC_ALL=C sort) >"$dir/have"
	LC_ALL=C sort "$dir/want" | diff - "$dir/have" || wrong "PREFIX=$prefix installs other files than these"
	unit=$to$prefix/lib/systemd/system/tmtpd.service
	for path in $(grep -oE "(=|://)/usr/[^ ]*" "$unit" | sed 's|^[=:/]*/|/|'); do
		[ -e "$to$path" ] || wrong "PREFIX=$prefix: the unit names $path, which is not installed"
	done
	grep -q "^ExecStart=$prefix/sbin/tmtpd " "$unit" || wrong "PREFIX=$prefix: the unit starts something else"
	for program in sbin/tmtpd bin/tmtpctl; do
		"$to$prefix/$program" --version >/dev/null || wrong "$program does not run"
	done
	bash -n "$to$prefix/share/bash-completion/completions/tmtpctl" || wrong "the completion is no bash"
	for page in man1/tmtpctl.1 man5/tmtp.conf.5 man8/tmtpd.8; do
		command -v groff >/dev/null || break
		said=$(groff -man -ww -z "$to$prefix/share/man/$page" 2>&1)
		[ -z "$said" ] || wrong "$page: $said"
	done
done

# Every option has its place in the manual.
"$build/tmtpd" --list-config | cut -f1 | sed 's/.*\.//' | while read -r name; do
	grep -q "^\.BR $name " "$dir/usr/local.d/usr/local/share/man/man5/tmtp.conf.5" || echo "$name"
done | grep . && wrong "tmtp.conf.5 lacks these"

# A page leads to other pages; the sources that the tests' pages show are not installed.
(cd "$dir/usr/local.d/usr/local/share/doc/tmtp" && find . -name '*.md' | while read -r page; do
	grep -oE '\]\([^)#`]+' "$page" | sed 's/^](//' | grep -vE '^https?:|\.mjs$' | while read -r link; do
		[ -e "$(dirname "$page")/$link" ] || echo "$page leads to $link, which is not installed"
	done
done) >"$dir/links"
[ ! -s "$dir/links" ] || wrong "$(cat "$dir/links")"

# The commands that README.md tells name what is there.
for path in $(sed -n '/^## Setting it up/,/^## /p' README.md | grep -oE '/usr/local/[^ ]*'); do
	[ -e "$dir/usr/local.d$path" ] || wrong "README.md names $path, which is not installed"
done

if [ "$(id -u)" -eq 0 ] && command -v systemd-sysusers >/dev/null && command -v systemd-tmpfiles >/dev/null; then
	root=$dir/usr/local.d
	mkdir -p "$root/etc" "$root/var/lib"
	systemd-sysusers --root="$root" tmtp.conf >/dev/null 2>&1 || wrong "systemd-sysusers fails"
	grep -q '^tmtp:' "$root/etc/passwd" || wrong "no account tmtp"
	systemd-tmpfiles --root="$root" --create tmtp.conf >/dev/null 2>&1 || wrong "systemd-tmpfiles fails"
	group=$(sed -n 's/^tmtp:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
	user=$(sed -n 's/^tmtp:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/passwd")
	[ "$(stat -c '%a %u %g' "$root/etc/tmtp")" = "750 0 $group" ] || wrong "/etc/tmtp is not the group's to read"
	[ "$(stat -c '%a %u %g' "$root/var/lib/tmtp")" = "750 $user $group" ] || wrong "/var/lib/tmtp is not the account's"
fi
[ $bad -eq 0 ] && echo "install: ok ($(wc -l <"$dir/want") files)"
exit $bad
