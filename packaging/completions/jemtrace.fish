# fish completion for jemtrace(8). Commands and options are asked of the program itself, so none is missing here.

function __jemtrace_commands
    jemtrace --help 2>/dev/null | sed -n '/^Subcommands:/,/^$/s/^  \([a-z][a-z-]*\)  *\(.*\)/\1\t\2/p'
end

function __jemtrace_command
    set -l commands (__jemtrace_commands | string split -f 1 \t)
    for word in (commandline -opc)[2..-1]
        if contains -- $word $commands
            echo $word
            return 0
        end
    end
    return 1
end

function __jemtrace_options
    jemtrace (__jemtrace_command) --help 2>/dev/null | sed -n '/^  -/{/[^ ]  /!N;s/^  \(-[^ ]*\).*  \([^ ].*\)/\1\t\2/p;}' | while read -l -d \t names help
        for name in (string split -- , $names)
            printf '%s\t%s\n' $name $help
        end
    end
end

complete -c jemtrace -n 'not __jemtrace_command >/dev/null' -f -a '(__jemtrace_commands)'
complete -c jemtrace -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__jemtrace_options)'
complete -c jemtrace -s f -l format -x -a 'text json'
complete -c jemtrace -l mallctl -x -a 'call'
complete -c jemtrace -l otlp-temporality -x -a 'cumulative delta'
complete -c jemtrace -s p -l pid -x -a '(__fish_complete_pids)'
complete -c jemtrace -s n -l name -x -a '(cat /proc/[0-9]*/comm 2>/dev/null | sort -u)'
complete -c jemtrace -l user -x -a '(__fish_complete_users)'
complete -c jemtrace -s o -l output -r
