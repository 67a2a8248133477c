# Completion of all chex-* commands in fish; see chextools(7).
function __chextools_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (CHEXTOOLS_COMPLETE=fish $words[1] (string unescape -- $words[2..-1]) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end

for command in chex-{cam,compare,eval,features,import,phantom,predict,prep,probe,regress,report,segment,train,tune,view}
    complete --command $command --no-files --arguments '(__chextools_complete)'
end
