"""Verbs about the protocols of detection and segmentation."""

from typing import Annotated

import typer

verbs = typer.Typer()
protocol = typer.Typer(help="What a detection protocol is, once its framework has built it.", no_args_is_help=True)
verbs.add_typer(protocol, name="protocol")

Name = Annotated[str, typer.Argument(help="A detection task from `cgh-bench list tasks`.")]


@protocol.command("show")
def show(
    name: Name,
    framework: Annotated[str, typer.Option(help="mmdet or detectron2; left out, the task's own.")] = "",
) -> None:
    """Build network and solver and print what they are: parameters, norms, learning rates, sizes, metric.

    \b
    Example:
      cgh-bench protocol show coco_det --framework detectron2
    """
    from cgh_bench.tasks import protocol_diff

    for fact, value in protocol_diff.facts(name, framework).items():
        print(f"{fact}: {value}")


@protocol.command("diff")
def diff(
    name: Name,
    frameworks: Annotated[str, typer.Option(help="Joined by a comma.")] = "detectron2,mmdet",
) -> None:
    """Build network and solver in each framework and print every effective difference.

    \b
    Example:
      cgh-bench protocol diff coco_det --frameworks detectron2,mmdet
    """
    from cgh_bench.core.errors import UserError
    from cgh_bench.tasks import protocol_diff

    named = frameworks.split(",")
    if len(set(named)) < 2:
        raise UserError(f"--frameworks {frameworks}: two different ones are needed, as detectron2,mmdet")
    described = [protocol_diff.facts(name, framework) for framework in named]
    found = protocol_diff.differences(described)
    for difference in found:
        print(difference.fact)
        for framework, value in zip(named, difference.values, strict=True):
            print(f"    {framework:12} {value}")
    facts = {fact for one in described for fact in one}
    print(f"{name}: differences: {len(found)}; the other {len(facts) - len(found)} facts are the same")
