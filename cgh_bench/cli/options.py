"""The shape of our commands, and the options that several of them share."""

import contextlib
import functools
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cgh_bench.core.device import Resources, limited
from cgh_bench.core.errors import UserError
from cgh_bench.reading import names

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


class Folder(click.Path):
    """A folder to write to: it is there or can be made; a dry run finds that out too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, if it, or the first of the folders above it that exists, is a folder."""
        folder = Path(os.fsdecode(super().convert(value, param, ctx)))
        for place in (folder, *folder.parents):
            with contextlib.suppress(FileNotFoundError):
                place.lstat()
                if not place.is_dir():
                    self.fail(f"{place} is not a folder; choose another.", param, ctx)
                break
        return folder


class Command(click.Command):
    """Its usage line shows arguments and required options by name: `eval TASK[,TASK…] --ckpt CKPT [OPTIONS]`."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The words after the command's name."""
        required = [p for p in self.params if isinstance(p, click.Option) and p.required]
        arguments = [word for p in self.params for word in p.get_usage_pieces(ctx)]
        return [*arguments, *(f"{p.opts[0]} {p.make_metavar(ctx)}" for p in required), str(self.options_metavar)]


class Group(click.Group):
    """A command of commands, listed in the order of a user's work."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they were added."""
        return list(self.commands)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def text(*names: str, help: str, metavar: str = "TEXT") -> Decorator:
    """An option that takes words, none by default."""
    return click.option(*names, default="", show_default=False, metavar=metavar, help=help)


def flag(*names: str, help: str) -> Decorator:
    """An option that is given or not."""
    return click.option(*names, is_flag=True, help=help)


def count(name: str, default: int | None, help: str, least: int = 1, envvar: str | None = None) -> Decorator:
    """An option that takes a number of `least` or more."""
    return click.option(name, type=click.IntRange(min=least), default=default, metavar="N", help=help, envvar=envvar)


def together(*options: Decorator) -> Decorator:
    """Several options, listed in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


data = text("--data", metavar="DATASET", help="Dataset name or your own folder.")
work = click.option(
    "--work", type=Folder(), default="work", envvar="CGH_WORK", show_envvar=True, help="Folder for all output."
)
settings = click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Override a field; may be repeated."
)
seeds = count("--seeds", 1, "Repeat with seeds 0 to N-1.")
jobs = count("--jobs", None, "Cells to run in parallel, sharing the cores.  [default: one per core; 1 on a GPU]")
dry_run = flag("--dry-run", help="Check everything and print what would run; write nothing.")
slurm = text("--slurm", metavar="KEY=VALUE,…", help="Submit as a SLURM job with these submitit options (needs --gpus).")
as_json = flag("--json", "as_json", help="Print everything as JSON.")
arch = click.option(
    "--arch", metavar="NAME", help="Architecture (timm name, such as convnext_tiny) if the file does not state it."
)
reference = click.option(
    "--reference",
    type=PATH,
    metavar="REF.npz",
    help="Outputs of the original model, to compare with (`cgh-bench reference script`).",
)
trust_code = flag("--trust-code", help="Allow the code of a hub: repository to run (unsafe).")


choices = together(
    click.option("--source", metavar="SOURCE", help="Read as this source (`cgh-bench list sources`)."),
    click.option("--branch", metavar="NAME", help="Network to use when the file holds several (student, teacher, …)."),
    arch,
    reference,
    flag("--trust-pickle", help="Allow unpickling to execute code from the file (unsafe)."),
    trust_code,
)
"""How a checkpoint is read; the command gets all but the reference as `recognition.Choices`."""
filters = together(
    text("--task", metavar="TASK", help="Only this task."),
    text("--protocol", metavar="PROTOCOL", help="Only this protocol id."),
    text("--ckpt", metavar="CKPT", help="Only checkpoints with this in their name, or with this id."),
    text("--method", help="Only recipes with this in their name."),
)
"""Which results are meant; see `results.select`."""
rows_and_checkpoints = together(
    click.option("--row", "rows", multiple=True, metavar="LABEL", help="Only this row; may be repeated."),
    click.option(
        "--checkpoints",
        type=PATH,
        help="Folder with the checkpoint files named by table rows.  [default: $CGH_DATA/checkpoints]",
    ),
)
"""Which rows of a table are meant, and where their files are."""
_LIMITS = together(
    text("--device", metavar="DEVICE", help="cpu, cuda or cuda:N.  [default: the GPU if there is one]"),
    count("--workers", None, "Processes that decode images.  [default: one per core]", least=0),
    count("--batch-size", None, "Batch size for a frozen backbone.  [default: 256]"),
)


def limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what of the machine the command may use; it runs within `device.limited`."""

    @functools.wraps(command)
    def within(*args: Any, device: str, workers: int | None, batch_size: int | None, **kwargs: Any) -> Any:
        with limited(Resources(device or None, workers, batch_size)):
            return command(*args, **kwargs)

    return _LIMITS(within)


def checkpoints(given: tuple[str, ...]) -> list[str]:
    """Every checkpoint that is named: files, Hugging Face folders and controls as they are, patterns expanded.

    Raises:
        UserError: a file does not exist, or a pattern matches none.
    """
    return list(dict.fromkeys(name for pattern in given for name in _expanded(pattern)))


def _expanded(pattern: str) -> list[str]:
    path = Path(pattern).expanduser()
    if not isinstance(names.parse(pattern), Path) or path.exists():
        return [pattern]
    if not glob.has_magic(pattern):
        raise names.absent(pattern)
    found = sorted(glob.glob(str(path)))  # noqa: PTH207 (absolute patterns too)
    if not found:
        raise UserError(f"{pattern}: no checkpoint file matches this pattern")
    return found
