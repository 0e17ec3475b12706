#!/bin/sh
# Writes tmtp.conf(5) from `tmtpd --list-config`, so that it can't differ from the program.
set -eu
program=${TMTPD:-build/tmtpd}
list=$("$program" --list-config)
cat <<'END'
.\" Made by deploy/tmtp.conf.5.sh; check with: groff -man -ww -z tmtp.conf.5
.TH TMTP.CONF 5 "" "tmtp" "Administration"
.SH NAME
tmtp.conf \- the configuration of tmtpd and tmtpctl
.SH DESCRIPTION
.I /etc/tmtp/tmtp.conf
says which roles a machine has, for which domains it speaks, and where it listens.
It holds options,
.IR "name = value" ,
and sections,
.IR "name { ... }" .
Strings stand in quotes, lists in braces with commas between, numbers bare; the unit is in the option's name.
What is left out keeps its default.
Relative file names begin at the file's own directory.
.BR # ,
.B //
and
.B /* */
begin comments.
No secret belongs here, only names of files that hold them.
.PP
.B domain
and
.B route
are followed by the domain's name and may stand several times; every other section stands once.
.PP
The file is checked as a whole, the certificates and keys that it names included, before anything is taken from it;
.B tmtpd \-\-check
does nothing else.
SIGHUP takes over domains, certificates,
.B log_level
and
.BR drain_timeout_s ;
everything else waits for a restart, and a log line names it.
END
echo "$list" | awk -F '\t' '
	function escape(text) {
		gsub(/\\/, "\\e", text)
		gsub(/-/, "\\-", text)
		return text
	}
	function quote(text) {
		gsub(/"/, "\"\"", text)
		return "\"" text "\""
	}
	BEGIN { print ".SH OPTIONS OUTSIDE OF SECTIONS" }
	{
		name = $1
		if (index(name, ".") > 0) {
			this = substr(name, 1, index(name, ".") - 1)
			name = substr(name, index(name, ".") + 1)
			if (this != section)
				print ".SH SECTION " toupper(this)
			section = this
		}
		print ".TP"
		print ".BR " name " \" = \" " quote(escape($3))
		print escape($4)
		print "(" escape($2) ")"
	}'
cat <<'END'
.SH FILES
.TP
.I /etc/tmtp/tmtp.conf
The configuration, for root and the group
.B tmtp
to read.
.SH EXAMPLES
A domain with websites and members behind a proxy that speaks HTTPS:
.PP
.nf
.RS
domain "example.org" {
	certificate = "/etc/tmtp/tls/example.org/fullchain.pem"
	key = "/etc/tmtp/tls/example.org/privkey.pem"
}
site { url = "https://example.org" }
home { url = "https://inbox.example.org" }
.RE
.fi
.SH SEE ALSO
.BR tmtpd (8),
.BR tmtpctl (1)
END
