"""The command line's entry: commands, shared behaviour, error to exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from bge_eval.cli.check import check
from bge_eval.cli.compare import compare
from bge_eval.cli.data import check as check_data
from bge_eval.cli.data import fetch
from bge_eval.cli.export import export
from bge_eval.cli.quiet import DEBUG
from bge_eval.cli.report import report
from bge_eval.cli.rescore import rescore
from bge_eval.cli.run import run
from bge_eval.cli.store import prune, show_store
from bge_eval.cli.table import table
from bge_eval.cli.tasks import tasks
from bge_eval.errors import BgeEvalError

app = typer.Typer(
    name="bge-eval",
    help="Evaluate text embedding models and rerankers on MTEB, BEIR and C-MTEB.",
    epilog="Try it without a network: bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _friendly(command: _Command) -> _Command:
    """Turn errors into one paragraph on stderr and the right exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except BgeEvalError as error:
            if os.environ.get(DEBUG):
                raise
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("Interrupted. Finished results are saved.", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output (head, less) has gone; there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            reason = " ".join(str(error).split())
            typer.echo(
                f"Error: {type(error).__name__}: {reason}\nThis was not foreseen. Run it again as"
                " `bge-eval --debug …` to see where it happened.",
                err=True,
            )
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


def _version(asked: bool) -> None:
    if asked:
        from bge_eval import __version__

        typer.echo(f"bge-eval {__version__}")
        raise typer.Exit


@app.callback()
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


app.command()(_friendly(run))
app.command()(_friendly(table))
app.command()(_friendly(compare))
app.command()(_friendly(rescore))
app.command()(_friendly(report))
app.command()(_friendly(export))
app.command()(_friendly(tasks))
app.command()(_friendly(check))

_data = typer.Typer(help="Bring data sets here for later offline use, and verify them.")
_data.command()(_friendly(fetch))
_data.command()(_friendly(check_data))
app.add_typer(_data, name="data")

_store = typer.Typer(invoke_without_command=True)
_store.callback()(_friendly(show_store))
_store.command()(_friendly(prune))
app.add_typer(_store, name="store")


def main() -> None:
    """Run the command line."""
    app()
