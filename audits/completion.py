"""`camcore completion bash|zsh`: a script for the shell, in which everything that can be completed is written out.

No Python runs when a key is pressed: the names are those of the version that wrote the script. Both shells run one
function, zsh by its own emulation of bash's completion.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from shlex import quote

from torchvision import models

from audits import command
from audits.policy import SHIPPED
from camcore.cam import METHODS
from camcore.command import COMMANDS, Parser
from camcore.explain.options import parser as parser_of_explain
from fixtures.controls import CONTROLS

FAMILIES = ("torchvision:", "py:", "control:", "hf:", "open_clip:", "mdetr:")
PASSED_ON = ("-k", "-x", "-n", "--junitxml", "--html")  # pytest's, that go with audits every day
DEVICES = ["auto", "cpu", "cuda", "mps"]
REPORTS = ("render", "diff", "trend", "schema")
SHELLS = ("bash", "zsh")
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
SCRIPT = r"""_camcore() {
    local line=${COMP_LINE:0:$COMP_POINT} choices="" command="" colons
    local current=${line##* } before=${line% *}
    case "$before" in *" "*) command=${COMP_WORDS[1]} ;; esac
    case "$command ${before##* }" in
CASES
    esac
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
    # bash takes a colon for the end of a word, and completes what follows it
    colons=${current%"${current##*:}"}
    case "$COMP_WORDBREAKS" in *:*) COMPREPLY=("${COMPREPLY[@]#"$colons"}") ;; esac
}
complete -o default -F _camcore camcore  # default: files, where nothing of these fits
"""


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    made = Parser(
        prog="camcore completion",
        description="Print a script that completes this command: commands, options, models, methods, audits.",
        epilog="bash: camcore completion bash > ~/.local/share/bash-completion/completions/camcore. "
        "zsh: camcore completion zsh > ~/.camcore.zsh, and `source ~/.camcore.zsh` in ~/.zshrc.",
    )
    made.add_argument("shell", choices=SHELLS)
    sys.stdout.write(script(made.parse_args(argv).shell))
    return 0


def script(shell: str) -> str:
    """The script for `bash` or `zsh`."""
    cases = [f"        {pattern}) choices={quote(' '.join(words))} ;;" for pattern, words in completions().items()]
    return (ZSH if shell == "zsh" else "") + SCRIPT.replace("CASES", "\n".join(cases))


def completions() -> dict[str, list[str]]:
    """A shell's pattern of the command and the word before, to what may follow; the first that fits counts."""
    audits = [path.stem.removeprefix("test_") for path in sorted(SHIPPED.parent.glob("test_*.py"))]
    return {
        **_values("audit", command.parser()),
        '"audit -k"': audits,
        '"audit "*': [*_flags(command.parser()), *PASSED_ON, *(f"audits/test_{name}.py" for name in audits)],
        **_values("explain", parser_of_explain()),
        '"explain "*': _flags(parser_of_explain()),
        '"report report"': list(REPORTS),
        '"completion "*': list(SHELLS),
        '" "*': [*COMMANDS, "--help", "--version"],
    }


def _values(name: str, parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """What may follow each option that takes a value: nothing of ours where it is a file."""
    known = {
        "--model": [*(f"control:{control}" for control in CONTROLS), *FAMILIES, *models.list_models(module=models)],
        "--data": ["scenes", "imagenette", "cifar10"],
        "--weights": ["random:0"],
        "--cam": ["all", *sorted(METHODS)],
        "--audit-profile": list(tomllib.loads(SHIPPED.read_text(encoding="utf-8"))["profiles"]),
        "--audit-device": DEVICES,
        "--device": DEVICES,
    }
    takes = [flag for action in parser._actions if action.nargs != 0 for flag in action.option_strings]
    return {f'"{name} {flag}"': known.get(flag, []) for flag in takes}


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]
