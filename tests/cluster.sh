#!/bin/sh
# A PostgreSQL cluster for tests: `cluster.sh start DIR` makes and starts one in DIR (short
# and traversable: a socket lives there) with the roles and an empty database "tmtp";
# `cluster.sh halt DIR` kills it as a crash would, `resume` starts it again;
# `cluster.sh freeze DIR` stops all its processes where they are, `thaw` lets them go on;
# `cluster.sh stop DIR` stops it and removes DIR. Connect with host=DIR dbname=tmtp user=tmtp_...
set -eu
bin=${POSTGRES_BIN:-$(ls -d /usr/lib/postgresql/15/bin)}
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$2
if [ "$(id -u)" -eq 0 ]; then
	as() { runuser -u postgres -- "$@"; }
else
	as() { "$@"; }
fi
case $1 in
start)
	mkdir -p "$dir"
	[ "$(id -u)" -ne 0 ] || chown postgres: "$dir"
	cd "$dir"
	as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C -k -N >"$dir/initdb.log" 2>&1 ||
		{ cat "$dir/initdb.log"; exit 1; }
	cat >>"$dir/data/postgresql.conf" <<-EOF
		listen_addresses = ''
		unix_socket_directories = '$dir'
		shared_buffers = ${SHARED_BUFFERS:-256MB}
		wal_compression = lz4
		max_wal_size = 4GB
		checkpoint_timeout = 15min
		jit = off
		random_page_cost = 1.1
		max_connections = 100
	EOF
	as "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null
	as psql -qX -v ON_ERROR_STOP=1 -h "$dir" -U postgres -d postgres <"$here/schema/roles.sql"
	as psql -qX -v ON_ERROR_STOP=1 -h "$dir" -U postgres -d postgres -c 'CREATE DATABASE tmtp OWNER tmtp_owner'
	;;
halt)
	cd /
	as "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
	;;
resume)
	cd /
	as "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null
	;;
freeze | thaw)
	signal=STOP
	[ "$1" = freeze ] || signal=CONT
	postmaster=$(head -n 1 "$dir/data/postmaster.pid")
	kill -$signal "$postmaster"
	for pid in $(cat "/proc/$postmaster/task/$postmaster/children"); do
		kill -$signal "$pid" 2>/dev/null || : # it has ended since
	done
	;;
stop)
	cd /
	as "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null || true
	rm -rf "$dir"
	;;
*)
	echo "usage: cluster.sh start|halt|resume|freeze|thaw|stop DIR" >&2
	exit 2
	;;
esac
