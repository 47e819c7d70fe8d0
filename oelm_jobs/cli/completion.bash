# Completion of oelm's commands for bash 3.2 and later. In ~/.bashrc: eval "$(oelm completion bash)"
_oelm_complete() {
    local IFS=$'\n' kind word rows
    COMPREPLY=()
    rows=$(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="$2" _OELM_COMPLETE=bash "${1/#\~/$HOME}" 2>/dev/null </dev/null)
    while IFS=$'\t' read -r kind word _; do
        case $kind in
            plain)
                case $word in *=) ;; *) word+=' ' ;; esac
                COMPREPLY+=("$word")
                ;;
            file | dir)
                compopt -o filenames +o nospace 2>/dev/null # bash 4
                [ "$kind" = file ] && kind=f || kind=d
                # shellcheck disable=SC2207 # mapfile is bash 4
                COMPREPLY+=($(compgen "-$kind" -- "$2"))
                ;;
        esac
    done <<<"$rows"
}
complete -o nospace -F _oelm_complete COMMANDS
