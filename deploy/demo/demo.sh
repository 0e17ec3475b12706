#!/bin/sh
# Two appliances on this machine, strangers to each other: shop.test has a website, home.test
# has a member. Starts both on embedded databases, plays an order update from the website into
# the member's inbox, and leaves them running until Ctrl-C. ONCE=1 ends after the play.
#
#   BUILD      where the programs are (build)
#   VAR        where the state is (var; somewhere under /var/tmp when others can't reach it)
#   PORT_BASE  the first of ten ports (18400, or the next free ones)
set -eu
cd "$(dirname "$0")/../.."
BUILD=$(cd "${BUILD:-build}" && pwd)
PATH=$BUILD:$PATH
here=$(pwd)

say() { printf '%s\n' "$*"; }
fail() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# --- where the state is -------------------------------------------------------
# PostgreSQL never runs as root, so its account must reach the state.
reachable() {
	dir=$1
	while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- test -x "$dir" && runuser -u nobody -- test -x "$dir"
	else
		[ -x "$dir" ]
	fi
}
VAR=${VAR:-$here/var}
if ! reachable "$VAR" || [ ${#VAR} -gt 60 ]; then
	VAR=/var/tmp/tmtp-demo-$(printf %s "$here" | cksum | cut -d' ' -f1)
fi
mkdir -p "$VAR"
owner=$(stat -c %u "$VAR")
[ "$owner" -eq "$(id -u)" ] || fail "$VAR belongs to somebody else: choose another folder with VAR=..."
chmod 755 "$VAR"
if [ "$(id -u)" -eq 0 ]; then user=nobody; else user=$(id -un); fi

exec 9>"$VAR/lock"
flock -n 9 || fail "another demo runs on $VAR"

# --- ports: as the last time, else ten free ones ---------------------------------
free() { # the first of ten
	taken=$(ss -Hltn | awk '{print $4}' | sed 's/.*://' | sort -u)
	for i in 0 1 2 3 4 5 6 7 8 9; do
		if printf '%s\n' "$taken" | grep -qx $(($1 + i)); then return 1; fi
	done
}
# A number with room for ten ports, all of them open to who is not root.
base_good() {
	case $1 in
	'' | *[!0-9]* | 0* | ??????*) return 1 ;;
	esac
	[ "$1" -ge 1024 ] && [ $(($1 + 9)) -le 65535 ]
}
# One clone after the other chooses: the lock is kept until the ports are listened on.
exec 8>"${TMPDIR:-/tmp}/tmtp-demo-ports.$(id -u)"
flock 8
base=$(cat "$VAR/ports" 2>/dev/null || true)
if [ -n "$base" ] && ! base_good "$base"; then
	say "What stands in $VAR/ports is no port to begin with: others are chosen."
	base=
fi
if [ -n "${PORT_BASE:-}" ]; then
	base_good "$PORT_BASE" ||
		fail "PORT_BASE=$PORT_BASE cannot be: it is the first of ten ports, a number from 1024 to 65526"
	free "$PORT_BASE" || fail "one of the ten ports from $PORT_BASE on is taken"
	base=$PORT_BASE
elif [ -z "$base" ] || ! free "$base"; then
	base=18400
	until free $base; do
		base=$((base + 10))
		base_good $base || fail "no ten ports in a row are free from 18400 on"
	done
fi
echo "$base" >"$VAR/ports"
shop_https=$base shop_dmtps=$((base + 1)) shop_dmtp=$((base + 2)) shop_members=$((base + 3)) shop_metrics=$((base + 4))
home_members=$((base + 5)) home_dmtps=$((base + 6)) home_dmtp=$((base + 7)) home_https=$((base + 8)) home_metrics=$((base + 9))

# --- a CA of the demo's own, and a certificate for each domain ---------------------
certificate() { # NAME
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$VAR/$1.key" \
		-subj "/CN=$1" -out "$VAR/$1.csr" 2>/dev/null
	printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$1" |
		openssl x509 -req -in "$VAR/$1.csr" -CA "$VAR/ca.pem" -CAkey "$VAR/ca.key" \
			-CAcreateserial -days 90 -extfile /dev/stdin -out "$VAR/$1.pem" 2>/dev/null
	rm -f "$VAR/$1.csr"
	[ "$(id -u)" -ne 0 ] || chown "$user" "$VAR/$1.key"
	chmod 400 "$VAR/$1.key"
}
umask 022
if ! openssl x509 -checkend 604800 -noout -in "$VAR/ca.pem" >/dev/null 2>&1; then
	rm -f "$VAR"/*.pem "$VAR"/*.key
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$VAR/ca.key" \
		-subj "/CN=demo CA of $(hostname)" -days 365 -out "$VAR/ca.pem" 2>/dev/null
	chmod 400 "$VAR/ca.key"
fi
for name in shop.test home.test; do
	openssl x509 -checkend 604800 -noout -in "$VAR/$name.pem" >/dev/null 2>&1 || certificate $name
done

# --- the two configurations ----------------------------------------------------------
config() { # NAME, its site's port, members' port, DMTPS, DMTP, metrics; the other's name and ports
	cat <<-EOF
		roles = {"site", "relay", "home"}
		state_directory = "$VAR/$1"
		database = "embedded"
		embedded_memory_mb = 256
		user = "$user"

		domain "$1.test" {
			certificate = "$VAR/$1.test.pem"
			key = "$VAR/$1.test.key"
		}
		site {
			listen = {"127.0.0.1:$2"}
			url = "https://$1.test:$2"
			tls = true
		}
		home {
			listen = {"127.0.0.1:$3"}
			url = "https://$1.test:$3"
			tls = true
			dmtps_listen = {"127.0.0.1:$4"}
			dmtp_listen = {"127.0.0.1:$5"}
			metrics_listen = "127.0.0.1:$6"
		}
		relay {
			retry_min_s = 1
			retry_max_s = 30
		}
		# The other appliance: no name server of this machine knows it, so its way is pinned,
		# with the CA that vouches for it.
		route "$7.test" {
			dmtp = "127.0.0.1:$8"
			pickup = "127.0.0.1:$9"
			ca = "$VAR/ca.pem"
			allow_private = true
		}
	EOF
}
# A site's members may be at its own domain, and a member's sites: each knows its own way, too.
own_way() { # NAME, DMTPS, its site's port
	cat <<-EOF
		route "$1.test" {
			dmtp = "127.0.0.1:$2"
			pickup = "127.0.0.1:$3"
			ca = "$VAR/ca.pem"
			allow_private = true
		}
	EOF
}
config shop $shop_https $shop_members $shop_dmtps $shop_dmtp $shop_metrics home $home_dmtps $home_https >"$VAR/shop.conf"
own_way shop $shop_dmtps $shop_https >>"$VAR/shop.conf"
config home $home_https $home_members $home_dmtps $home_dmtp $home_metrics shop $shop_dmtps $shop_https >"$VAR/home.conf"
own_way home $home_dmtps $home_https >>"$VAR/home.conf"

# --- starting both -----------------------------------------------------------------------
pids=
work=$(mktemp -d)
stop() {
	trap - EXIT INT TERM
	for pid in $pids; do kill "$pid" 2>/dev/null || true; done
	for pid in $pids; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap 'stop; exit 130' INT TERM
trap stop EXIT

start() { # NAME
	mkdir -p "$VAR/$1"
	tmtpd --check -c "$VAR/$1.conf" >/dev/null
	tmtpd -c "$VAR/$1.conf" 2>"$VAR/$1.log" 9>&- 8>&- &
	eval "$1_pid=$!"
	pids="$pids $!"
}
ready() { # NAME PORT PATH-OWNER's pid
	tries=0
	while ! get "$1.test" "$2" /readyz >/dev/null 2>&1; do
		kill -0 "$3" 2>/dev/null || fail "the appliance $1 did not start: $(tail -n 3 "$VAR/$1.log")"
		! grep -m1 -E "event=(cannot-start|listen-failed)" "$VAR/$1.log" >&2 || fail "the appliance $1 did not start"
		tries=$((tries + 1))
		[ $tries -lt 600 ] || fail "the appliance $1 is not ready after a minute: $VAR/$1.log"
		sleep 0.1
	done
}
get() { # HOST PORT PATH [curl's options]
	host=$1 port=$2 path=$3
	shift 3
	curl -sS --fail-with-body --max-time 20 --cacert "$VAR/ca.pem" --resolve "$host:$port:127.0.0.1" \
		"https://$host:$port$path" "$@"
}
say "Starting shop.test and home.test (state and logs: $VAR) ..."
start shop
start home
ready shop $shop_https $shop_pid
ready shop $shop_members $shop_pid
ready home $home_https $home_pid
ready home $home_members $home_pid
exec 8>&-

# --- 1. the administrators' part ------------------------------------------------------------
shop() { tmtpctl --config "$VAR/shop.conf" "$@"; }
home() { tmtpctl --config "$VAR/home.conf" "$@"; }
make_password() { (umask 077 && rm -f "$VAR/password" && openssl rand -hex 12 >"$VAR/password"); }
make_key() { # KID
	(umask 077 && rm -f "$VAR/site.key" && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \
		-out "$VAR/site.key" 2>/dev/null)
	openssl pkey -in "$VAR/site.key" -pubout 2>/dev/null |
		shop key add shop@shop.test --kid "$1" --algorithm ES256 --public-key - >/dev/null
}
valid_kids() { shop --json key list shop@shop.test | jq -r '.keys[] | select(.revoked == null).kid'; }
[ -s "$VAR/password" ] || make_password
if ! shop site show shop@shop.test >/dev/null 2>&1; then
	shop site create shop@shop.test --title "The Shop" >/dev/null
	shop channel create shop@shop.test orders --title "Your orders" >/dev/null
	shop channel create shop@shop.test news --title "News" >/dev/null
	make_key web1
fi
kid=$(valid_kids | tail -n 1)
if ! home --json account list | jq -e '.. | strings | select(. == "ann@home.test")' >/dev/null 2>&1; then
	home account create ann@home.test --password-file "$VAR/password" >/dev/null
fi
say "1. The site shop@shop.test with its channels and key; the account ann@home.test."

jwt() { tmtpctl token jwt shop@shop.test --kid "$kid" --key "$VAR/site.key" --expires 1h; }
site() { # METHOD PATH [JSON]
	if [ $# -gt 2 ]; then
		get shop.test $shop_https "$2" -X "$1" -H "Authorization: Bearer $token" \
			-H 'Content-Type: application/json' -d "$3"
	else
		get shop.test $shop_https "$2" -X "$1" -H "Authorization: Bearer $token"
	fi
}
member() { # METHOD PATH [JSON]
	if [ $# -gt 2 ]; then
		get home.test $home_members "$2" -X "$1" -H "Authorization: Bearer $login" \
			-H 'Content-Type: application/json' -d "$3"
	else
		get home.test $home_members "$2" -X "$1" -H "Authorization: Bearer $login"
	fi
}
until_true() { # WHAT, then a command that says yes
	what=$1
	shift
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || fail "$what did not happen within 30 seconds; see $VAR/shop.log and $VAR/home.log"
		sleep 0.1
	done
}
# The key and the password are files beside the databases: who lost one gets another.
token=
lets_in() { token=$(jwt 2>/dev/null) && site GET /v1/channels >"$work/answer" 2>/dev/null; }
if ! lets_in; then
	old=$(valid_kids)
	kid=web$(($(shop --json key list shop@shop.test | jq '.keys | length') + 1))
	make_key "$kid"
	for id in $old; do shop key revoke shop@shop.test --kid "$id" >/dev/null; done
	say "   $VAR/site.key was lost or another's: a new key was made, $kid."
	lets_in || fail "the shop does not take its new key: $(cat "$work/answer")"
fi
log_in() {
	get home.test $home_members /v1/login -H 'Content-Type: application/json' \
		-d "{\"address\": \"ann@home.test\", \"password\": \"$(cat "$VAR/password")\"}" >"$work/answer" 2>/dev/null &&
		login=$(jq -r .token "$work/answer")
}
if ! log_in; then
	make_password
	home account password ann@home.test --password-file "$VAR/password" >/dev/null
	say "   $VAR/password was lost or another's: Ann has a new one."
	log_in || fail "home.test does not take Ann's new password: $(cat "$work/answer")"
fi

# --- 2. registering, inviting, accepting ---------------------------------------------------------
holds() { [ "$(site GET /v1/channels/orders/members/ann@home.test 2>/dev/null | jq -r .state)" = granted ]; }
asked() { member GET /v1/invitations | jq -e '.. | objects | select(.from == "shop@shop.test" and .channel == "orders")' >/dev/null; }
if ! holds; then
	site POST /v1/channels/orders/members '{"address": "ann@home.test", "text": "Hear when your order is on its way."}' >/dev/null
	until_true "the invitation's arrival" asked
	member POST /v1/invitations/shop@shop.test/orders/accept '{}' >/dev/null
	until_true "the grant's arrival at the shop" holds
	say "2. Ann was invited over DMTP and accepted; her grant for shop@shop.test's \"orders\" came back."
else
	say "2. Ann holds shop@shop.test's \"orders\" since an earlier run."
fi

# --- 3 to 5. pushing, relaying, reading; the next one live ----------------------------------------
unread_before=$(member GET '/v1/inbox?limit=1' | jq -r '.unread')
get home.test $home_members /v1/inbox/events -N --max-time 3600 -H "Authorization: Bearer $login" >"$work/live" 2>/dev/null &
pids="$pids $!"
id=$(site POST /v1/channels/orders/messages \
	'{"to": "ann@home.test", "subject": "Order 1001 is on its way", "message": "It arrives tomorrow before noon."}' | jq -r .id)
say "3. The shop pushed message $id; it was committed before the 202."
arrived() { member GET '/v1/inbox?limit=1' | jq -e '.entries[0].subject == "Order 1001 is on its way" and .unread > '"$unread_before" >/dev/null; }
until_true "the message's arrival in the inbox" arrived
say "4. home.test was notified, acknowledged, picked the message up and verified it."
entry=$(member GET '/v1/inbox?limit=1' | jq -r '.entries[0].id')
member GET "/v1/inbox/$entry" | jq . | sed 's/^/   /'
member POST "/v1/inbox/$entry/read" >/dev/null
shown() { grep -q 'Order 1002' "$work/live"; }
site POST /v1/channels/orders/messages \
	'{"to": "*", "lane": "normal", "subject": "Order 1002 was delivered", "message": "Enjoy it."}' >/dev/null
until_true "the second message's arrival, live" shown
say "5. Ann read it; the next one came live:"
awk -v RS= '/(^|\n)event: entry/ { last = $0 } END { print last }' "$work/live" | sed 's/^/   /'
say "6. What became of the first one: $(site GET "/v1/messages/$id" | jq -c .recipients)"

if [ -n "${ONCE:-}" ]; then
	say "Done: the message was read from the inbox over its public API."
	exit 0
fi
cat <<EOF

Both appliances run. Ctrl-C stops them.

  websites' API    https://shop.test:$shop_https     (127.0.0.1)
  members' API     https://home.test:$home_members     (127.0.0.1)
                   No name server knows these names: curl needs --resolve, as below.
  CA               $VAR/ca.pem
  member           ann@home.test, password in $VAR/password
  the site's key   $VAR/site.key (kid $kid); a token for an hour:
                   $BUILD/tmtpctl token jwt shop@shop.test --kid $kid --key $VAR/site.key --expires 1h
  administration   $BUILD/tmtpctl --config $VAR/shop.conf --help     (sites)
                   $BUILD/tmtpctl --config $VAR/home.conf --help     (accounts)
  logs             $VAR/shop.log $VAR/home.log

Push one yourself:

  curl --cacert $VAR/ca.pem --resolve shop.test:$shop_https:127.0.0.1 \\
    https://shop.test:$shop_https/v1/channels/orders/messages \\
    -H "Authorization: Bearer \$($BUILD/tmtpctl token jwt shop@shop.test --kid $kid --key $VAR/site.key)" \\
    -H 'Content-Type: application/json' \\
    -d '{"to": "ann@home.test", "subject": "Hello", "message": "From the command line."}'

Read her inbox:

  curl --cacert $VAR/ca.pem --resolve home.test:$home_members:127.0.0.1 \\
    https://home.test:$home_members/v1/inbox \\
    -H "Authorization: Bearer \$(curl -s --cacert $VAR/ca.pem --resolve home.test:$home_members:127.0.0.1 \\
      https://home.test:$home_members/v1/login -H 'Content-Type: application/json' \\
      -d "{\"address\": \"ann@home.test\", \"password\": \"\$(cat $VAR/password)\"}" | jq -r .token)"
EOF
wait $shop_pid $home_pid
fail "an appliance ended by itself: $(tail -n 2 "$VAR/shop.log" "$VAR/home.log")"
