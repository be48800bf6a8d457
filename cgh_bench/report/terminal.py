"""What the terminal says of a single result."""

from rich.console import Console
from rich.text import Text

from cgh_bench import tasks
from cgh_bench.results import Result

CONSOLE = Console(highlight=False)


def show_result(result: Result, *, reused: bool = False) -> None:
    """One line: the task, the seed, its declared metrics in their order, and how long it took or that it was known."""
    line = Text(f"{result.task}, seed {result.seed}: ")
    for number, metric in enumerate(tasks.find(result.task).METRICS):
        unit = "" if metric.unit == "%" else f" {metric.unit}"
        line.append(("  " if number else "") + f"{metric.name} ")
        line.append(f"{result.metrics[metric.name]:.2f}{unit}", "" if number else "bold")
    line.append("  reused" if reused else f"  {result.seconds:.1f} s", "dim")
    CONSOLE.print(line)
