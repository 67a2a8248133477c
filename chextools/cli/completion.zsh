#compdef -P chex-*
# Completion of all chex-* commands in zsh; see chextools(7).
_chextools() {
    local -a given names meanings by_line
    local line
    given=("${(@Q)words[2,CURRENT]}")
    for line in "${(@f)$(CHEXTOOLS_COMPLETE=zsh $words[1] "${given[@]}" 2>/dev/null)}"; do
        [[ -n $line ]] || continue
        names+=("${line%%$'\t'*}")
        meanings+=("${line/$'\t'/  -- }")
    done
    if (( $#names )); then
        (( ${meanings[(I)*  -- *]} )) && by_line=(-l)
        compadd -U -V chextools $by_line -d meanings -a names
    else
        _files
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _chextools "$@"
else
    compdef -P _chextools 'chex-*'
fi
