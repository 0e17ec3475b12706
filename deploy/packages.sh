#!/bin/sh
# Installs the Debian packages that a target needs, when any is missing and we are root:
# `packages.sh build`, `run`, `test`, `bench` or `lint`. Says what is missing otherwise.
set -eu

build="build-essential pkg-config libmicrohttpd-dev libpq-dev libssl-dev libsodium-dev libjwt-dev
libjansson-dev libyajl-dev libevent-dev libc-ares-dev libcurl4-openssl-dev libpsl-dev libconfuse-dev
libsystemd-dev libutf8proc-dev libidn2-dev libgnutls28-dev libjemalloc-dev uthash-dev libgmime-3.0-dev"
run="postgresql-15 openssl curl jq ca-certificates iproute2"
test="libcmocka-dev knot nodejs python3 clang-14 libclang-rt-14-dev llvm-14 procps nginx-light libfaketime"
lint="clang-format-14 clang-tidy-14 cppcheck"

case ${1:-} in
build) want="$build" ;;
run) want="$build $run" ;;
test | bench) want="$build $run $test" ;;
lint) want="$build $lint" ;;
*) echo "usage: packages.sh build|run|test|bench|lint" >&2; exit 2 ;;
esac

# The tests of mail start a Postfix of their own. A machine that has another mail server keeps it
# (the packages exclude each other), and those tests are skipped there.
other_mta() {
	[ -e /usr/sbin/sendmail ] && ! dpkg-query -W -f '${Status}' postfix 2>/dev/null | grep -q 'ok installed'
}
case ${1:-} in
test) other_mta || want="$want postfix" ;;
esac

missing=
for package in $want; do
	if [ "$package" = nodejs ] && command -v node >/dev/null 2>&1; then
		continue # another Node than Debian's will do
	fi
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
		missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "These packages are missing; install them as root: apt-get install$missing" >&2
	exit 1
fi
echo "installing:$missing" >&2
log=$(mktemp)
policy=
trap 'rm -f "$log" $policy' EXIT
export DEBIAN_FRONTEND=noninteractive
case " $missing " in
*" postfix "*) # without a configuration its service doesn't start
	echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections ;;
esac
case " $missing " in
*" nginx-light "*) # the tests start one of their own: the package's isn't to take port 80 meanwhile
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		# shellcheck disable=SC2016 # it is the script's own
		printf '#!/bin/sh\n[ "$1" != nginx ] || exit 101\n' >"$policy"
		chmod 755 "$policy"
	fi ;;
esac
for try in 1 2 3; do
	# shellcheck disable=SC2086 # a list of packages
	if apt-get update -q >"$log" 2>&1 &&
		apt-get install -q -y --no-install-recommends $missing >>"$log" 2>&1; then
		exit 0
	fi
	echo "apt-get failed (attempt $try of 3)" >&2
done
tail -n 20 "$log" >&2
exit 1
