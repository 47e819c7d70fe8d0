# Completion of oelm's commands for fish. In ~/.config/fish/config.fish: oelm completion fish | source
function __oelm_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l line (commandline --cut-at-cursor --current-process | string collect)
    for row in (env COMP_LINE="$line" _OELM_COMPLETE=fish $words[1] 2>/dev/null </dev/null)
        set -l part (string split \t -- $row)
        switch $part[1]
            case plain
                printf '%s\t%s\n' $part[2] "$part[3]"
            case file
                __fish_complete_path (commandline --current-token)
            case dir
                __fish_complete_directories (commandline --current-token)
        end
    end
end
for command in COMMANDS
    complete --no-files --keep-order --command $command --arguments '(__oelm_complete)'
end
