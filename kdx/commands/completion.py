"""`kdx completion`: completes groups, options and keys in the shell from the config files.

Hydra completes a program without subcommands, so the scripts pass it the line without the command.
"""

from collections.abc import Sequence

from kdx.commands.catalogue import KINDS
from kdx.core.notice import stop

BASH = """\
_kdx() {
    local line="$COMP_LINE" word="${COMP_WORDS[COMP_CWORD]}" choices
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices="@COMMANDS@"
    elif [ "${COMP_WORDS[1]}" = train ]; then
        line="${line#*train}"
        word="${line##* }"
        if [[ "$word" == experiment=* ]]; then  # Hydra does not look into folders of options
            choices=$(kdx list experiments 2>/dev/null | cut -d' ' -f1 | sed 's/^/experiment=/')
        else  # networks are chosen by role, and studies have a command of their own
            choices=$(COMP_LINE="kdx$line" COMP_POINT="$COMP_POINT" kdx train -sc query=bash 2>/dev/null |
                tr ' ' '\n' | sed -E '/^(model|study)([=./]|$)/d; s|^experiment/|experiment=|')
        fi
    elif [ "${COMP_WORDS[1]}" = list ]; then
        choices="@KINDS@"
    elif [ "${COMP_WORDS[1]}" = study ]; then
        line="${line#*study}"
        word="${line##* }"
        choices=$(kdx list studies 2>/dev/null | cut -d' ' -f1 | sed 's/^/study=/')
    elif [ "${COMP_WORDS[1]}" = completion ]; then
        choices="bash zsh"
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _kdx kdx
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH
SHELLS = {"bash": BASH, "zsh": ZSH}


def main(arguments: Sequence[str], commands: Sequence[str]) -> None:
    """Print the script of a shell. Exits with 2 for a shell that has none.

    Args:
        arguments: The name of the shell.
        commands: Names of kdx's commands.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        stop(2, ['name a shell, bash or zsh: eval "$(kdx completion bash)"'])
    script = SHELLS[arguments[0]].replace("@COMMANDS@", " ".join(commands)).replace("@KINDS@", " ".join(KINDS))
    print(script, end="")
