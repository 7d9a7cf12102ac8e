"""The command line's entry: commands, shared behaviour, error to exit code."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, TypeVar

import typer

from bge_eval.cli.formats.printable import print_error
from bge_eval.cli.help import HelpfulCommand, HelpfulGroup
from bge_eval.cli.quiet import DEBUG, encode_everything
from bge_eval.errors import BgeEvalError, as_failure

COMMANDS = {
    "run": "Evaluate a model on tasks, save the results, print the table.",
    "watch": "Evaluate every checkpoint of a training once, as soon as it is complete.",
    "table": (
        "Print saved results: models as rows, tasks or task types as columns, and the averages."
    ),
    "curve": (
        "Tell what shorter, compressed and indexed vectors cost: score, recall, memory and speed."
    ),
    "compare": "Compare systems query by query: differences, intervals, p-values.",
    "prompts": "Tell how much of a score is the prompt, and which differences outlive it.",
    "agreement": (
        "Tell whether cuts of tasks (run --limit, --lite) rank systems as the whole tasks do."
    ),
    "reproduce": "Run what gives published scores, and print OK, close or off for each.",
    "rescore": "Compute measures from runs and judgements, without a model.",
    "mistakes": "Group the queries on which a run fails, and write training data from them.",
    "report": "Write saved results as one HTML page.",
    "export": (
        "Write saved results for others: mteb's public results repository, or a model card."
    ),
    "track": "Send saved scores to TensorBoard, MLflow, Weights & Biases or Trackio.",
    "tasks": "List the suites, or a suite's tasks and whether each can be run offline from here.",
    "shards": "Show which parts of which tasks are encoded (run --shard), missing or stale.",
    "check": (
        "Compare saved runs with a baseline; exit 1 if a score dropped, 3 if a task is missing."
    ),
}
"""Command → its first line of help; its function has its name, in the module of its name."""
GROUPS = {
    "data": "Bring data sets here for later offline use, verify them, and look for faults in them.",
    "judge": "Judge documents that nobody judged: a sheet for people or for a language model.",
    "store": (
        "List the stored embeddings: model, prompt, how many texts, how large, when last used."
    ),
}
"""Groups of commands, likewise."""

_COMPLETE = "_BGE_EVAL_COMPLETE"
"""Environment variable with which the shell asks for completions of the line being typed."""

_COLLECTION = (50_000, 20, 10)
"""Thresholds of the garbage collector. Importing mteb makes a million objects that stay, and by
Python's own thresholds each is looked at many times: a third of the seconds of the import."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; it ends as after Ctrl-C."""


def _terminate(*_: object) -> None:
    raise _TerminatedError


def _friendly(command: _Command) -> _Command:
    """Turn errors into one paragraph on stderr and the right exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except BgeEvalError as error:
            if os.environ.get(DEBUG):
                raise
            print_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as stop:
            word = "Terminated" if isinstance(stop, _TerminatedError) else "Interrupted"
            typer.echo(f"{word}. Finished results are saved; the same command continues.", err=True)
            raise typer.Exit(143 if isinstance(stop, _TerminatedError) else 130) from None
        except BrokenPipeError:
            # The program that reads our output (head, less) has ended.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            failure = as_failure(error, "A file or folder of this command")
            print_error(str(failure))
            raise typer.Exit(failure.exit_code) from None

    return wrapped  # type: ignore[return-value]


def _version(wanted: bool) -> None:
    if wanted:
        from bge_eval import __version__

        typer.echo(f"bge-eval {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


def application(word: str | None = None) -> typer.Typer:
    """Make the command line.

    Args:
        word: the command that will run. The others get a name and a line of help only, because
            importing their modules takes most of the time of ``--help``. None makes them all.
    """
    app = typer.Typer(
        name="bge-eval",
        help="Evaluate text embedding models and rerankers on MTEB, BEIR and C-MTEB.",
        epilog=(
            "Try it without a network: bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo"
        ),
        no_args_is_help=True,
        rich_markup_mode=None,
        cls=HelpfulGroup,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, line in COMMANDS.items():
        if word in (None, name):
            function = getattr(import_module(f"bge_eval.cli.{name}"), name)
            app.command(name, cls=HelpfulCommand)(_friendly(function))
        else:
            app.command(name, help=line)(_stub)
    for name, make in {"data": _data, "judge": _judge, "store": _store}.items():
        if word in (None, name):
            app.add_typer(make(), name=name)
        else:
            app.command(name, help=GROUPS[name])(_stub)
    return app


def application_for(words: Sequence[str]) -> typer.Typer:
    """Make the command line with only the command that the words behind ``bge-eval`` name."""
    return application(next((word for word in words if not word.startswith("-")), ""))


def _data() -> typer.Typer:
    from bge_eval.cli.data import check, fetch
    from bge_eval.cli.data_audit import audit

    group = typer.Typer(help=GROUPS["data"], rich_markup_mode=None, cls=HelpfulGroup)
    group.command(cls=HelpfulCommand)(_friendly(fetch))
    group.command(cls=HelpfulCommand)(_friendly(check))
    group.command(cls=HelpfulCommand)(_friendly(audit))
    return group


def _judge() -> typer.Typer:
    from bge_eval.cli.judge import ask, export, read

    group = typer.Typer(help=GROUPS["judge"], rich_markup_mode=None, cls=HelpfulGroup)
    for command in (export, ask, read):
        group.command(cls=HelpfulCommand)(_friendly(command))
    return group


def _store() -> typer.Typer:
    from bge_eval.cli.store import merge, prune, show_store

    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None, cls=HelpfulGroup)
    group.callback()(_friendly(show_store))
    group.command(cls=HelpfulCommand)(_friendly(merge))
    group.command(cls=HelpfulCommand)(_friendly(prune))
    return group


def _stub() -> None:
    """Stand for a command whose module is not imported."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(*_COLLECTION)
    encode_everything()
    signal.signal(signal.SIGTERM, _terminate)
    app = application() if _COMPLETE in os.environ else application_for(sys.argv[1:])
    app(prog_name="bge-eval")
