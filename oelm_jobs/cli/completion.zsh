#compdef COMMANDS
# Completion of oelm's commands for zsh. In ~/.zshrc: eval "$(oelm completion zsh)"
_oelm_complete() {
    local row kind word about line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a rows bare open described
    rows=("${(@f)$(COMP_LINE=$line _OELM_COMPLETE=zsh "${words[1]/#\~/$HOME}" 2>/dev/null </dev/null)}")
    for row in $rows; do
        IFS=$'\t' read -r kind word about <<<"$row"
        case $kind in
            plain)
                if [[ $word == *= ]]; then
                    open+=("$word")
                elif [[ -n $about ]]; then
                    described+=("${word//:/\\:}:$about")
                else
                    bare+=("$word")
                fi
                ;;
            file) _files ;;
            dir) _files -/ ;;
        esac
    done
    (($#described)) && _describe -V oelm described
    (($#bare)) && compadd -V oelm -- $bare
    (($#open)) && compadd -V oelm -S '' -- $open
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then # a file _oelm in a folder of fpath
    _oelm_complete "$@"
else
    (($+functions[compdef])) || { autoload -Uz compinit && compinit; }
    compdef _oelm_complete COMMANDS
fi
