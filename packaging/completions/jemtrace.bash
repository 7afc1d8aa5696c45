# bash completion for jemtrace(8). Commands and options are asked of the program itself, so none is missing here.

_jemtrace_help() { # PROGRAM [COMMAND]
	"$@" --help 2>/dev/null
}

_jemtrace() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
	local command='' commands word i
	COMPREPLY=()
	commands=$(_jemtrace_help "$program" | sed -n '/^Subcommands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p')
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $word == -- ]]; then
			if declare -F _command_offset >/dev/null; then _command_offset $((i + 1)); fi
			return
		fi
		if [[ -z $command && $'\n'$commands$'\n' == *$'\n'$word$'\n'* ]]; then command=$word; fi
	done

	case $previous in
	--mallctl) mapfile -t COMPREPLY < <(compgen -W call -- "$current") && return ;;
	--otlp-temporality) mapfile -t COMPREPLY < <(compgen -W 'cumulative delta' -- "$current") && return ;;
	-f | --format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$current") && return ;;
	-p | --pid) mapfile -t COMPREPLY < <(compgen -W "$(cd /proc && echo [0-9]*)" -- "$current") && return ;;
	-n | --name) mapfile -t COMPREPLY < <(compgen -W "$(cat /proc/[0-9]*/comm 2>/dev/null)" -- "$current") && return ;;
	--user) mapfile -t COMPREPLY < <(compgen -u -- "$current") && return ;;
	--cgroup)
		mapfile -t COMPREPLY < <(compgen -d -- "/sys/fs/cgroup/${current#/}" | sed 's|^/sys/fs/cgroup||')
		return
		;;
	-d | --duration | -i | --interval) return ;;
	esac
	if [[ $current == -* ]]; then
		word=$(_jemtrace_help "$program" ${command:+"$command"} | sed -n 's/^  \(-[^ ]*\).*/\1/p' | tr ',' '\n')
		mapfile -t COMPREPLY < <(compgen -W "$word" -- "$current")
	elif [[ -z $command ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
	fi
	# Nothing of ours: file names, by -o default.
}
complete -o default -F _jemtrace jemtrace
