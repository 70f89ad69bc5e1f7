"""`bingo completion bash|zsh`: a script with every verb, its flags and their choices, which asks Python nothing."""

from collections.abc import Iterable, Mapping

from bingo.arguments import Parser

SCRIPT = """\
_bingo() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words= flags=
  local verb="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
  [ "$COMP_CWORD" = 1 ] && verb=
  [ "$COMP_CWORD" = 2 ] && verb="${{COMP_WORDS[1]}} "
  case "$verb:$before" in
{cases}
  esac
  [[ $current == -* ]] && words=$flags
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _bingo bingo
"""
ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def script(shell: str, verbs: Iterable[str], parsers: Mapping[str, Parser]) -> str:
    """What a shell reads to complete `bingo`; parsers: the words of a command (`bench step`) -> its flags.

    Files are completed where nothing of ours fits.
    """
    cases = [_case(":*", verbs, ["--help"])]
    for words, parser in parsers.items():
        verb = f"'{words}'" if " " in words else f"'{words} '*"
        cases += [_case(f"{verb}:{flag}", choices) for flag, choices in _choices(parser).items() if flag]
        cases.append(_case(f"{verb}:*", _choices(parser).get("", []), [*parser.flags(), "--help"]))
    below = [words.split() for words in parsers if " " in words]
    for verb in dict.fromkeys(verb for verb, _ in below):
        cases.append(_case(f"'{verb} ':*", [second for first, second in below if first == verb], ["--help"]))
    return (ZSH if shell == "zsh" else "") + SCRIPT.format(cases="\n".join(cases))


def _case(pattern: str, words: Iterable[str], flags: Iterable[str] = ()) -> str:
    """One branch: what may stand there, and what if it begins with a dash."""
    return f"    {pattern}) words='{' '.join(words)}' flags='{' '.join(flags)}' ;;"


def _choices(parser: Parser) -> dict[str, list[str]]:
    """Flags that take one of a few words, and under "" those of the leading word."""
    found = {flag: action.choices for flag, action in parser.flags().items()} | {"": parser.leading_choices()}
    return {flag: [str(choice) for choice in choices] for flag, choices in found.items() if choices}
