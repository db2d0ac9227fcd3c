"""`hanse`: the command line. Every command imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from hanse.cli.access import access
from hanse.cli.audit import audit
from hanse.cli.bench import bench
from hanse.cli.check import check
from hanse.cli.compare import compare
from hanse.cli.data import data
from hanse.cli.demo import demo
from hanse.cli.doctor import doctor
from hanse.cli.export import export
from hanse.cli.fetch import fetch
from hanse.cli.invite import invite
from hanse.cli.join import join
from hanse.cli.login import login
from hanse.cli.logs import logs
from hanse.cli.new import new
from hanse.cli.privacy import privacy
from hanse.cli.report import report
from hanse.cli.resume import resume
from hanse.cli.run import run as run_command
from hanse.cli.runs import runs
from hanse.cli.serve import serve
from hanse.cli.show import show
from hanse.cli.site import site
from hanse.cli.sites import sites
from hanse.cli.stop import stop
from hanse.cli.submit import submit
from hanse.cli.sweep import sweep
from hanse.cli.watch import watch
from hanse.core.errors import HanseError, did_you_mean

_EXIT_CODES = """Exit codes: 0 fine · 1 a bug in Hanse · 2 the job or the command · 3 data or model ·
4 the run failed · 5 the run folder · 6 the federation · 7 privacy · 130 interrupted, resumable.

--debug, anywhere, shows the traceback of an error."""

_UsageProblem: Any = typer.BadParameter.__mro__[2]
"""click's ClickException, which typer brings along in some versions and imports in others."""


class _Commands(TyperGroup):
    """Names the nearest command where one is misspelt."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = did_you_mean(name, self.list_commands(ctx))
            raise _Misspelt(f"there is no command `{name}`", hint=hint)
        return super().resolve_command(ctx, args)


class _Misspelt(HanseError):
    exit_code = 2


app = typer.Typer(
    name="hanse",
    cls=_Commands,
    help="Train models together, each keeping its own data: federated learning from one job file.",
    epilog=_EXIT_CODES,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_LOCAL: tuple[Callable[..., int | None], ...] = (
    demo,
    new,
    run_command,
    check,
    resume,
    sweep,
    runs,
    show,
    compare,
    privacy,
    report,
    export,
)
_FEDERATED: tuple[Callable[..., int | None], ...] = (
    serve,
    invite,
    join,
    login,
    submit,
    watch,
    stop,
    sites,
    logs,
    fetch,
    access,
    audit,
    doctor,
)
for _command in _LOCAL:
    app.command(name=_command.__name__)(_command)
app.add_typer(data, name="data", cls=_Commands)
app.add_typer(bench, name="bench", cls=_Commands)
for _command in _FEDERATED:
    app.command(name=_command.__name__)(_command)
app.add_typer(site, name="site", cls=_Commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        import hanse

        typer.echo(f"hanse {hanse.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Say the version."),
) -> None:
    """Train models together, each keeping its own data: federated learning from one job file."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run() -> None:
    """Entry point of the program `hanse`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
      arguments: Without the program's name. ``--debug``, anywhere before ``--``, shows tracebacks.

    Returns:
      The exit code.
    """
    debug, rest = _without_debug(arguments)
    try:
        found = app(args=rest, prog_name="hanse", standalone_mode=False)
    except HanseError as error:
        return _failed(error, debug=debug)
    except _UsageProblem as error:
        return _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001  the last line of defence: a sentence, and no traceback unasked
        return _bug(error, debug=debug)
    return found if isinstance(found, int) else 0


def _without_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    before = [a for a in arguments[:end] if a != "--debug"]
    return len(before) < end, [*before, *arguments[end:]]


def _failed(error: HanseError, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    _say(f"error: {error}" if error.exit_code != 130 else str(error))
    return error.exit_code


def _misused(error: Any) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hanse"
    message = error.format_message().rstrip(".")
    _say(f"error: {message[:1].lower()}{message[1:]}\n\nhint: see {command} --help")
    return 2


def _bug(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    more = "" if debug else "; --debug shows where"
    _say(f"error: this is a bug in Hanse, or in code that it was given: {type(error).__name__}: {error}{more}")
    return 1


def _say(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
