"""The options of the command line."""

import argparse

from camcore.command import Parser

DEFAULT_CAM = "hirescam"


def parser() -> argparse.ArgumentParser:
    """The options of `camcore explain`."""
    one = Parser(
        prog="camcore explain",
        description="Write overlays, raw maps and a sheet that shows several methods side by side.",
        epilog="Exit codes: 0 all done; 1 what could not be done is named, the rest is written; 2 a wrong option, "
        "model, class or folder, nothing done; 130 interrupted, the rest is written.",
    )
    add = one.add_argument
    add("images", nargs="*", metavar="IMAGE", help="photographs, as files")
    add("--model", metavar="SPEC", help="resnet50, torchvision:NAME@ENTRY, py:FILE.py:factory (runs it), control:NAME")
    add("--weights", metavar="FILE|random:SEED", help="instead of the published ones")
    add("--layer", metavar="NAME", help="target layer, instead of the one that is found")
    add("--device", metavar="auto|cpu|cuda[:N]|mps", default="auto", help="where the model runs; default: auto")
    add(
        "--cam",
        metavar="NAME",
        action="append",
        help=f"method, repeatable; all: every method that needs no further forwards; default: {DEFAULT_CAM}",
    )
    add("--class", dest="target", metavar="NAME|INDEX", help="class to explain; default: each image's predicted one")
    add("--against", metavar="NAME|INDEX", help="class to contrast it with: what speaks for the one, not the other")
    add("-o", "--output", metavar="DIR", default="explanation", help="folder to write to; default: explanation")
    add("--list-cams", action="store_true", help="list the methods and leave")
    return one
