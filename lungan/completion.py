"""What a shell needs to complete groups, choices and keys; answers without torch or Hydra."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, get_type_hints

from lungan import registry
from lungan.config import GROUPS, RunConfig, presets, rules
from lungan.config.rules import CHOICES
from lungan.errors import LunganError

SCRIPTS = {
    "bash": """\
_lungan_train() {{
    local IFS=$'\\n' line="${{COMP_LINE:0:COMP_POINT}}"
    local word="${{line##* }}" cut=""
    if [[ $word == *=* ]]; then cut="${{word%=*}}="; fi  # where bash begins a word of its own
    COMPREPLY=($({command} --complete "$line"))
    COMPREPLY=("${{COMPREPLY[@]#"$cut"}}")
    compopt -o nospace 2> /dev/null
}}
complete -F _lungan_train lungan
# Now: eval "$({command} --shell-completion bash)"; for good: put that into ~/.bashrc""",
    "zsh": """\
_lungan_train() {{
    local -a found
    found=("${{(@f)$({command} --complete "${{BUFFER[1,CURSOR]}}")}}")
    compadd -U -S '' -- $found
}}
compdef _lungan_train lungan
# Now: eval "$({command} --shell-completion zsh)"; for good: put that into ~/.zshrc""",
    "fish": """\
complete -c lungan -f -a '({command} --complete (commandline -cp))'
# For good: {command} --shell-completion fish > ~/.config/fish/completions/lungan.fish""",
}
COMMAND = "python -m lungan.train"


def script(shell: str) -> str:
    """The lines that a shell has to read, of ``bash``, ``zsh`` or ``fish``."""
    return SCRIPTS[shell].format(command=COMMAND)


def complete(parser: argparse.ArgumentParser, line: str) -> int:
    """Print what the last word of a command line can become, a line each; gives the exit code."""
    words = line.split(" ")
    folders = [words[i + 1] for i, word in enumerate(words[:-2]) if word in ("-cd", "--config-dir")]
    try:
        with presets.searching(folders):
            found = _completions(parser, words)
    except LunganError:
        return 1  # a shell has no place for words of ours
    print("\n".join(found))
    return 0


def _completions(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    word = words[-1]
    if word.startswith("-"):
        actions = [each for each in parser._actions if each.help != argparse.SUPPRESS]
        options = [text for action in actions for text in action.option_strings]
        return [text for text in sorted(options) if text.startswith(word)]
    key, sign, value = word.partition("=")
    if sign:
        # What comes after a comma is a value of its own.
        last = value.rpartition(",")[2]
        before = word.removesuffix(last)
        return [f"{before}{each}" for each in _values(key, words) if each.startswith(last)]
    return [text for text in _keys(words) if text.startswith(word)]


def _keys(words: list[str]) -> list[str]:
    names = [field.name for field in dataclasses.fields(RunConfig)]
    below = [
        f"{group}.{field.name}="
        for group in GROUPS
        for field in dataclasses.fields(_schema(group, words))
        if field.name != "name"
    ]
    return sorted([*(f"{name}=" for name in names), f"{presets.EXPERIMENT}=", *below])


def _values(key: str, words: list[str]) -> list[str]:
    key = key.lstrip("+")
    if key in (*GROUPS, presets.EXPERIMENT, presets.SWEEPS, "hydra/launcher"):
        return presets.choices(key)
    group, _, name = key.rpartition(".")
    schema = _schema(group, words) if group in GROUPS else RunConfig
    for field in dataclasses.fields(schema):
        if field.name == name:
            if get_type_hints(schema)[name] is bool:
                return ["false", "true"]
            return [rules.shown(value) for value in field.metadata.get(CHOICES, ())]
    return []


def _schema(group: str, words: list[str]) -> Any:
    """The dataclass of what the line chooses, else of the default; a plug-in's is not loaded."""
    chosen = dict(presets.defaults())
    chosen |= dict(word.split("=", 1) for word in words[:-1] if "=" in word)
    name = str(chosen[group])
    known = group == "score" or name in registry.known(group)
    return rules.schema(GROUPS[group], group, name if known else registry.known(group)[0])
