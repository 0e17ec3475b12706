# bash completion for tmtpctl(1): install as /usr/share/bash-completion/completions/tmtpctl.
# Commands and options come from the program's own help, so they can't differ from it.

_tmtpctl_commands() { # the first words, or the second words behind $2
	"$1" --help 2>/dev/null | awk -v first="${2-}" '
		/^Options/ { exit }
		/^  [a-z]/ {
			if (first == "") print $1
			else if ($1 == first && substr($0, 4 + length(first), 1) ~ /[a-z]/) print $2
		}'
}

_tmtpctl_options() { # the options of the command in the other arguments
	local program=$1
	shift
	"$program" "$@" --help 2>/dev/null | awk '/^  --/ { print $1 }'
	echo --help
}

_tmtpctl_values() { # what an option takes, of command $2
	case $1 in
	--algorithm) echo ES256 RS256 HS256 ;;
	--scope) echo push members read push,members,read ;;
	--state)
		case $2 in
		member) echo invited granted refused revoked removed ;;
		*) echo waiting delivered failed dead rejected recalled ;;
		esac
		;;
	--expires | --since) echo 1h 24h 7d 90d ;;
	*) return 1 ;;
	esac
}

_tmtpctl() {
	local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local -a words=()
	local i list

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-c | --config) ((i++)) ;;
		-*) ;;
		*) words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	case $prev in
	-c | --config | --*-file | --key | --public-key)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	esac
	if list=$(_tmtpctl_values "$prev" "${words[0]-}"); then
		mapfile -t COMPREPLY < <(compgen -W "$list" -- "$cur")
		return
	fi
	if [[ $cur == -* && ${#words[@]} -eq 0 ]]; then
		list="--config --json --help --version"
	elif [[ $cur == -* ]]; then
		list=$(_tmtpctl_options "$program" "${words[@]:0:2}")
	elif [[ ${#words[@]} -eq 0 ]]; then
		list=$(_tmtpctl_commands "$program" | sort -u)
	elif [[ ${#words[@]} -eq 1 ]]; then
		list=$(_tmtpctl_commands "$program" "${words[0]}")
	else
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$list" -- "$cur")
}

complete -F _tmtpctl tmtpctl
