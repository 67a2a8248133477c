# Completion of all chex-* commands in bash. bash-completion finds it by itself once installed; see chextools(7).
_chextools() {
    local value
    COMPREPLY=()
    while IFS=$'\t' read -r value _; do
        [ -n "$value" ] && COMPREPLY+=("$value")
    done < <(CHEXTOOLS_COMPLETE=bash "$1" "${_chextools_words[@]}" 2>/dev/null)
    case ${COMPREPLY[*]+"${COMPREPLY[*]}"} in
        -*) ;;
        *) compopt -o filenames ;; # quotes the spaces in a task's name
    esac
}

_chextools_complete() {
    local _chextools_words=() word k
    for ((k = 1; k <= COMP_CWORD; k++)); do
        word=${COMP_WORDS[k]}
        case $word in # as the shell would read it, but nothing in it is run
            \"*) word=${word#\"} word=${word%\"} ;;
            \'*) word=${word#\'} word=${word%\'} ;;
            *) word=${word//\\/} ;;
        esac
        _chextools_words+=("$word")
    done
    _chextools "$1"
}

complete -o default -F _chextools_complete chex-{cam,compare,eval,features,import,phantom,predict,prep,probe,regress,report,segment,train,tune,view}
