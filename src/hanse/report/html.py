"""The report of a run: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hanse.core.errors import StorageError, StorageFullError
from hanse.core.units import format_bytes, format_count, format_seconds, plural
from hanse.plots.partition import Holdings
from hanse.report.page_template import page_template
from hanse.report.section import Section
from hanse.report.sections import build_sections, headline
from hanse.report.toml import to_toml
from hanse.rounds.history import RunRecord
from hanse.rounds.privacy.spending import PrivacyAccount

_COMMAND = "hanse run job.toml"


def write_report(
    run: RunRecord,
    path: str | Path,
    *,
    partition: Holdings | None = None,
    privacy: PrivacyAccount | None = None,
    command: str = _COMMAND,
) -> Path:
    """Writes the report of a run and returns where it is.

    The file appears as a whole or not at all; the same run gives the same bytes.

    Args:
      run: What is reported.
      path: The file to write; missing folders are made.
      partition: Who holds what; without it that section is left out.
      privacy: What the run has spent; without it that section is left out.
      command: What repeats the run, given the job as ``job.toml``.

    Raises:
      MissingExtraError: matplotlib or jinja2 is not installed.
      StorageFullError: the disk is full.
      StorageError: the file can't be written for another reason.
    """
    target = Path(path)
    text = render_report(run, partition=partition, privacy=privacy, command=command)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text)
    except OSError as error:
        kind = StorageFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        hint = "free some space, or write it elsewhere" if kind is StorageFullError else "is the folder writable?"
        raise kind(f"the report {target} can't be written: {error.strerror}", hint=hint) from error
    return target


def render_report(
    run: RunRecord,
    *,
    partition: Holdings | None = None,
    privacy: PrivacyAccount | None = None,
    command: str = _COMMAND,
) -> str:
    """The report of a run as HTML text; arguments as in `write_report`.

    Raises:
      MissingExtraError: matplotlib or jinja2 is not installed.
    """
    sections = build_sections(run, partition, privacy)
    return page_template("report.html.jinja").render(
        run=run,
        headline=headline(run),
        facts=_facts(run),
        sections=sections,
        contents=_contents(sections),
        job=to_toml(run.job),
        command=command,
    )


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """The figures at the top: name and value."""
    history = run.history
    done = history.last.round if history.last else 0
    failures = sum(len(record.failures) for record in history.rounds)
    abandoned = sum(record.status == "abandoned" for record in history.rounds)
    facts = [
        ("Rounds", f"{done:,} of {run.rounds_planned:,}"),
        ("Clients", format_count(run.num_clients)),
        ("Parameters", format_count(run.num_parameters)),
        ("Sent up", format_bytes(history.bytes_up)),
        ("Sent down", format_bytes(history.bytes_down)),
        ("Time", format_seconds(run.seconds)),
        ("Failures", format_count(failures)),
    ]
    if abandoned:
        facts.append(("Abandoned", plural(abandoned, "round")))
    return facts


def _contents(sections: Sequence[Section]) -> list[tuple[str, str]]:
    return [*((section.name, section.title) for section in sections), ("repeat", "Repeat this run")]


def _replace(target: Path, text: str) -> None:
    """Writes beside the target and renames, so that no reader ever meets half a file."""
    with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        draft = Path(file.name)
        try:
            file.write(text.encode("utf-8", errors="replace"))
            file.close()
            draft.chmod(0o644)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
