"""Words on the command line: every verb refuses wrong ones in one sentence, describes all its flags, and completes."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.arguments import Parser
from bingo.cli import VERBS, main, parsers
from bingo.config_flags import settings
from bingo.flags import DOORS, USES, flags_of, leading
from bingo.stages import KINDS
from tests.support.ranks import ROOT

PARSERS = parsers()
every_command = pytest.mark.parametrize("words", PARSERS)
every_kind = pytest.mark.parametrize("kind", KINDS)
HEAVY = ("torch", "numpy", "nvidia", "triton", "faiss", "submitit", "torchvision")
# Every command is given its words, one at a time, in one interpreter: what is imported by one is seen after the last.
PROGRAM = """
import contextlib, io, json, sys
from bingo.cli import main
found = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    found.append((status, out.getvalue(), err.getvalue()))
print(json.dumps([found, sorted(sys.modules)]))
"""


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def alone(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """(exit status, output, errors) of each command; nothing heavy may be imported by any."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, modules = json.loads(done.stdout)
    assert not set(HEAVY) & set(modules)
    return found


def test_every_verb_has_a_parser() -> None:
    assert {words.split()[0] for words in PARSERS} == set(VERBS)


def test_wrong_flags_are_refused_before_anything_heavy_is_imported() -> None:
    commands = [[*words.split(), "--no-such-flag", "x"] for words in PARSERS]
    for words, (status, out, error) in zip(commands, alone(commands), strict=True):
        assert (status, out, error.count("\n")) == (2, "", 1), words
        assert "unknown flag '--no-such-flag'" in error


def test_help_begins_with_an_example_and_imports_nothing_heavy() -> None:
    commands = [[*words.split(), "--help"] for words in PARSERS] + [["eval", "knn", "--help"]]
    for words, (status, out, error) in zip(commands, alone(commands), strict=True):
        assert (status, error) == (0, "")
        usage, blank, sentence, blank_too, example, *_ = out.splitlines()
        assert usage.startswith(f"usage: bingo {words[0]}")
        assert (blank, bool(sentence), blank_too) == ("", True, "")
        assert example.startswith(("example: bingo", 'example: eval "$(bingo'))


@every_command
def test_examples_are_read(words: str) -> None:
    example = PARSERS[words].example.partition("   (")[0]
    if words == "completion":
        example = "bingo completion bash"
    argv = shlex.split(example.partition(" -- ")[0])
    assert argv[: 1 + len(words.split())] == ["bingo", *words.split()]
    given = argv[1 + len(words.split()) :]
    if "--verify" not in given:
        PARSERS[words].parse_args(leading(given, DOORS[words].words) if words in DOORS else given)


def actions(parser: Parser) -> list[argparse.Action]:
    return parser._actions


@every_command
def test_every_flag_is_described_with_its_default(words: str) -> None:
    for action in actions(PARSERS[words]):
        assert action.help
        if action.default not in (None, False, argparse.SUPPRESS, (), []):
            assert f"(default: {action.default}" in action.help or f"(default {action.default}" in action.help


@every_kind
def test_every_setting_is_described(kind: str) -> None:
    known = {setting.name: setting for setting in settings(KINDS[kind].config)}
    assert {name for name, setting in known.items() if not setting.text} == set()
    flags = flags_of(kind).flags()
    door = DOORS[kind]
    assert set(door.unused) | set(door.usual) | {name for use in USES.get(kind, ()) for name in use.names} <= set(known)
    for name in set(known) - set(door.unused):
        assert known[name].text.replace("%", "%%") in str(flags[known[name].flag].help)


PATHS = "--data d --out o --bags b --teacher t"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("distill --studnet resnet18", "unknown flag '--studnet'; did you mean '--student' or '--student-ema'?"),
        ("distill --lr 0.1", "unknown flag '--lr'; did you mean '--optim.lr'?"),
        ("distill --stud resnet18", "unknown flag '--stud'; did you mean '--student' or '--student-ema'?"),
        ("distill --out=o", "missing: --data"),
        ("distill --data d --out o --bags b", "neither is given: set --teacher or --keys"),
        ("distill --recipe resnet18-r50 --data d --out o --bags b", "missing: --teacher"),
        (f"distill {PATHS} stray", "'stray' is a word too many"),
        (f"distill {PATHS} student", "'student' is a word too many; did you mean '--student' or '--student-ema'?"),
        (f"distill {PATHS} --optim.lr abc", "--optim.lr: 'abc' is not a number"),
        (f"distill {PATHS} --optim.batch 1.5", "--optim.batch: '1.5' is not a whole number"),
        (f"distill {PATHS} --objective papier", "--objective: 'papier' is not allowed; did you mean 'paper'?"),
        (f"distill {PATHS} --augment.scale 0.2 1.0", "--augment.scale: '0.2' is not 2 values with commas between them"),
        (f"distill {PATHS} --cutmix=yes", "takes no value, but got 'yes'"),
        (f"distill {PATHS} --student", "--student: needs a value"),
        (
            f"distill {PATHS} --objective paper --cutmix-block 32",
            "--cutmix-block is used with --objective release only",
        ),
        (f"distill {PATHS} --no-cutmix --cutmix-block 32", "--cutmix-block is used with --cutmix only"),
        (f"distill {PATHS} --cutmix-block -1", "cutmix-block=-1 is not allowed: it must be between 0 and"),
        (f"distill {PATHS} --teacher-bn train", "--teacher-bn: 'train' is not allowed; known: batch, eval"),
        (f"distill {PATHS} --augment.blur PIL", "--augment.blur: 'PIL' is not allowed"),
        ("pretrain --data d --out o --key-bn batch", "--key-bn: 'batch' is not allowed; known: eman, shuffle"),
        ("features --data d --model m --out o --dtype bf16", "--dtype: 'bf16' is not allowed; did you mean 'fp16'?"),
        ("features --data d --model m --out o --augment.blur pil", "unknown flag '--augment.blur'"),
        (f"distill {PATHS} --objective paper --warm-epochs 3", "--warm-epochs is used with --objective release only"),
        (f"distill {PATHS} --monitor.every 3", "--monitor.every is used with --monitor.val only"),
        (
            f"distill {PATHS} --loader.allow-bad --loader.max-bad 1",
            "--loader.max-bad is used without --loader.allow-bad",
        ),
        ("distill --data d --out o --bags b --keys k --arch resnet50", "--arch is used with --teacher only"),
        ("keys --data d --out o --teacher t --arc resnet50", "unknown flag '--arc'; did you mean '--arch'?"),
        ("features --augment.hue 0.1", "unknown flag '--augment.hue'"),
        ("bags --data d --out o --kind random --features f", "--features is used with --kind knn or kmeans only"),
        ("bags --data d --out o --features f --clusters 9", "--clusters is used with --kind kmeans only"),
        ("export --model m --out o --classifier c --classes 9", "--classes is used without --classifier only"),
        ("eval", "missing: linear|knn|fewshot|finetune|transfer, RUN"),
        ("eval lineal x", "'lineal' is not allowed; did you mean 'linear'?"),
        ("eval knn README.md --train t --val v --shots 3", "--shots is used by `eval fewshot` only"),
        ("eval fewshot README.md --train t --val v --k 3", "--k is used by `eval knn` only"),
        ("eval transfer README.md --val v", "missing: --train"),
        ("eval linear README.md --train t --val v --holdout 0.5", "--holdout is used by `eval transfer` only"),
        ("eval transfer README.md --train t --val v --holdout 1", "holdout=1.0 is not allowed: it must be between"),
        ("eval transfer README.md --train t --val v --transfer-l2 1,0", "transfer-l2=(1.0, 0.0) is not allowed"),
        ("eval transfer README.md --train t --val v --transfer-l2 1,x", "'x' is not a number"),
        ("eval knn README.md --train t --val v --k 10,10", "k=(10, 10) is not allowed: it must be numbers from 1"),
        ("eval knn README.md --train t --val v --k 10,", "'' is not a whole number"),
        ("eval knn README.md --train t --val v --seed 3", "--seed is used by `eval linear`, `eval fewshot`, `eval"),
        (
            "eval linear README.md --train t --val v --solver lbfgs --linear-lr 3",
            "--linear-lr is used with --solver sgd only",
        ),
        ("eval knn README.md --train t --val v --protocol moco", "--protocol is used by `eval linear` only"),
        ("eval linear x --protocol mocko", "--protocol: 'mocko' is not allowed; did you mean 'moco'?"),
        (
            "eval linear README.md --train t --val v --protocol moco --solver lbfgs",
            "--solver is used with --protocol cached only",
        ),
        (
            "eval linear README.md --train t --val v --protocol moco --linear-min-lr 1",
            "--linear-min-lr is used with --protocol release only",
        ),
        (
            "eval linear README.md --train t --val v --protocol release --linear-lr 0.001",
            "linear-lr=0.001 is below linear-min-lr=0.01, where the cosine ends",
        ),
        (
            "eval linear README.md --train t --val v --flip-p 0",
            "--flip-p is used by `eval finetune`, and by `eval linear`",
        ),
        (
            "eval linear README.md --train t --val v --runtime.checkpoint-every 5",
            "--runtime.checkpoint-every is used by `eval finetune`, and by `eval linear`",
        ),
        ("eval linear README.md --train t --val v --finetune.lr 1", "--finetune.lr is used by `eval finetune` only"),
        (
            "eval finetune README.md --train t --val v --finetune.names n --finetune.fraction 0.1",
            "--finetune.fraction is used without --finetune.names only",
        ),
        (
            "eval finetune README.md --train t --val v --finetune.fraction 0",
            "finetune.fraction=0.0 is not allowed: it must be > 0 and at most 1",
        ),
        (
            "eval linear README.md --train t --val v --protocol moco --crop-scale 0,1",
            "crop-scale=(0.0, 1.0) is not allowed: it must be 0 < low <= high <= 1",
        ),
        ("pack a", "missing: OUT"),
        ("pack a b c", "'c' is a word too many"),
        ("pack --verify x --convert", "unknown flag '--convert'; known: --verify, --workers"),
        ("pack --verfy x", "did you mean '--verify'?"),
        ("check a b", "'b' is a word too many"),
        ("report", "missing: PATH"),
        ("doctor --jsn", "did you mean '--json'?"),
        ("run digitz", "RECIPE: 'digitz' is not allowed; did you mean 'digits'?"),
        ("run digits --images x", "--images is no setting of the recipe digits"),
        ("run digits --epo 3", "unknown flag '--epo'; did you mean '--epochs'?"),
        ("submit", "missing: RECIPE|VERB, --cluster"),
        ("submit digits --cluster local --nodes 2", "--nodes is for a cluster, and --cluster local is none"),
        ("submit digits --cluster local --min-nodes 2", "--min-nodes is for a cluster"),
        ("submit digits --cluster local --preflight", "--preflight is for a cluster"),
        ("submit digits --cluster debug --dry-run", "--dry-run is for a cluster, and --cluster debug is none"),
        ("submit digits --cluster debug --ranks-per-node 2", "--ranks-per-node is for a cluster"),
        ("submit bags --cluster debug -- --dta d", "unknown flag '--dta'; did you mean '--data'?"),
        ("sweep bag --set a=1 --out o --cluster debug", "VERB: 'bag' is not allowed; did you mean 'bags'?"),
        ("sweep bags --set k=1 --out o --cluster debug --dry-run", "--dry-run is for a cluster"),
        ("status r --watch 0", "--watch: '0' is not between 1 and 86400"),
        ("status --submission x", "--submission needs the folder that it is in"),
        ("history r --all --submission x", "leave one of them out"),
        ("logs r --follow --attempt 2", "leave one of them out"),
        ("logs r -f job more", "'more' is a word too many"),
        ("cancel", "missing: ROOT"),
        ("prune r --keep 0", "--keep: '0' is not a whole number of at least 1"),
        ("prune r --older-than nan", "--older-than: 'nan' is not above 0"),
        ("repair --new", "did you mean '--new-code'?"),
        ("bench", "missing: the measurement; known: aot, bags, compare, env"),
        ("bench kernel", "unknown measurement 'kernel'; did you mean 'kernels'?"),
        ("bench env --rows 5", "unknown flag '--rows'; known: --json, --processes"),
        ("bench aot --queue 5", "unknown flag '--queue'; known: --json, --processes"),
        ("bench step --batch 4,,8", "--batch: '' is not a whole number of at least 1"),
        ("completion fish", "'fish' is not allowed"),
    ],
)
def test_wrong_words(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence in refused(words.split(), capsys)


def test_underscores_and_a_word_between_flags() -> None:
    assert flags_of("pretrain").parse_args(["--key_momentum", "0.5"]).key_momentum == 0.5
    found = PARSERS["logs"].parse_args(["root", "--rank", "1", "job"])
    assert (found.root, found.job, found.rank) == (Path("root"), "job", 1)
