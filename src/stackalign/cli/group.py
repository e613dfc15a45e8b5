"""What becomes of an error of any command: one clear line on stderr and an exit code, 1 failed, 130 cancelled."""

from __future__ import annotations

import logging
import sys
from typing import Any

import typer
from typer.core import TyperGroup

logger = logging.getLogger("stackalign")


class Group(TyperGroup):
    """Runs a command; its options ``--debug`` and ``--quiet`` govern what is told of errors and warnings."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command named on the line. Bad usage (exit code 2) is told by typer.

        Of what is logged, warnings are shown; an error that ends the command is its one last line.
        """
        from stackalign.core.work import WorkCancelled

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Plain())
        handler.setLevel(logging.WARNING)
        handler.addFilter(lambda record: record.levelno < logging.ERROR or handler.level <= logging.DEBUG)
        ctx.meta[__name__] = handler
        logger.addHandler(handler)
        try:
            return super().invoke(ctx)
        except (WorkCancelled, KeyboardInterrupt):
            typer.echo("stackalign: cancelled", err=True)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if isinstance(error, _usage_errors()):
                raise
            from stackalign.cli.terminal import one_line

            if handler.level <= logging.DEBUG:
                logger.debug("what led to this:", exc_info=error)
            typer.echo(f"stackalign: {one_line(error)}", err=True)
            raise typer.Exit(1) from None
        finally:
            logger.removeHandler(handler)


class _Plain(logging.Formatter):
    """``warning: the message``, with the traceback below if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def set_debug(ctx: typer.Context, value: bool) -> bool:
    """Show everything that is logged, and the traceback of an error."""
    if value:
        _set_level(ctx, logging.DEBUG)
        logger.setLevel(logging.DEBUG)
    return value


def set_quiet(ctx: typer.Context, value: bool) -> bool:
    """Show no warnings."""
    if value:
        _set_level(ctx, logging.ERROR)
    return value


def _set_level(ctx: typer.Context, level: int) -> None:
    handler = ctx.meta.get(__name__)
    if handler is not None and not ctx.resilient_parsing:
        handler.setLevel(level)


def _usage_errors() -> tuple[type[Exception], ...]:
    """Return the base of the errors that typer shows itself: its own, or click's in versions that stand on click."""
    base = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    return (base,)
