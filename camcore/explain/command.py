"""`camcore explain IMAGE... --model SPEC`: overlays, raw maps and a sheet of several methods side by side.

Exit codes: 0, everything was done; 1, something could not be done, is named in one line each, and the rest is written;
2, an option, the model, a class or the folder was wrong, and nothing was done; 130, interrupted, and what was
measured until then is written.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from camcore.cam import METHODS, PARTIAL, RECORDED, CamMethod, find_cam
from camcore.errors import BadInput, one_line, printable
from camcore.explain.classes import class_label, find_class
from camcore.explain.explanation import Drawn, Explanation, drawn, explanation, recorded
from camcore.explain.folder import Written, stems, write_image, write_manifest, write_sheet
from camcore.explain.options import DEFAULT_CAM, parser
from camcore.images import Image
from camcore.subject import Classifier
from camcore.suite import enter

AT_ONCE = 4  # images: as fast as more on a CPU, and photographs at full size are never all in memory


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, without the word "explain"; returns the exit code.

    Nothing that the user can get wrong ends in a traceback.
    """
    try:
        options = parser().parse_args(argv)
        if options.list_cams:
            list_cams()
            return 0
        return explain_files(options)
    except BadInput as problem:
        tell(f"camcore explain: {problem}")
        return 2
    except KeyboardInterrupt:
        tell("camcore explain: interrupted")
        return 130
    except Exception as problem:  # the disk is full, say
        tell(f"camcore explain: stopped by {one_line(problem)}")
        return 1


def explain_files(options: argparse.Namespace) -> int:
    """Explain the files in the options, a few at a time.

    Raises:
        BadInput: Before anything is written.
    """
    if not options.images:
        raise BadInput("name at least one image: camcore explain photo.jpg --model resnet50")
    if options.model is None:
        raise BadInput("name the model: --model resnet50, say, or --model py:mymodel.py:build")
    cams = chosen_cams(options.cam or [DEFAULT_CAM])
    subject = load(options)
    target, against = (
        None if text is None else find_class(text, subject.classes) for text in (options.target, options.against)
    )
    if target is not None and target == against:
        raise BadInput(f"--class and --against are both {class_label(target, subject.classes)!r}; name two classes")
    written = Written(folder=made(options.output))
    files = list(dict.fromkeys(options.images))
    todo = list(zip(files, stems(files), strict=True))
    try:
        for start in range(0, len(todo), AT_ONCE):
            part = todo[start : start + AT_ONCE]
            if len(todo) > AT_ONCE:
                tell(f"images {start + 1} to {start + len(part)} of {len(todo)}")
            for explained, named in explained_files(part, subject, cams, target, against, written):
                for index, (file, stem) in enumerate(named):
                    write_image(written, explained, index, file=file, stem=stem)
                    say(f"{file}: {'; '.join(explained.says(index))}")
    finally:  # what was measured is written, whatever stopped the rest
        write_sheet(written)
        write_manifest(written, {"model": described(subject), "methods": list(cams)})
    for sheet in written.sheets:
        say(str(written.folder / sheet))
    return 1 if written.failed else 0


def explained_files(
    part: Sequence[tuple[str, str]],
    subject: Classifier,
    cams: dict[str, CamMethod],
    target: int | None,
    against: int | None,
    written: Written,
) -> Iterator[tuple[Explanation, list[tuple[str, str]]]]:
    """Explanations of those of a few (file, stem) that can be read; one by one if they cannot be recorded together."""
    images, named = [], []
    for file, stem in part:
        try:
            images.append(read(file, subject))
            named.append((file, stem))
        except BadInput as problem:
            fail(written, file, str(problem))
    batches = [range(len(named))] if named else []
    while batches:
        batch = batches.pop(0)
        try:
            stacked = torch.stack([images[index] for index in batch]).to(subject.device)
            recording = recorded(subject, stacked, target=target, against=against)
        except Exception as problem:  # the model's own code runs here
            if len(batch) > 1:
                batches = [range(index, index + 1) for index in batch]
            else:
                fail(written, named[batch[0]][0], reason(problem))
            continue
        maps: dict[str, Drawn] = {}
        for name, method in cams.items():
            if name not in RECORDED and name not in PARTIAL:
                tell(f"  {name} asks the model again")
            try:
                maps[name] = drawn(name, method, recording)
            except Exception as problem:
                fail(written, name, reason(problem))
        files = [named[index] for index in batch]
        yield explanation(recording, maps, subject, names=[Path(file).name for file, _ in files]), files


def read(file: str, subject: Classifier) -> Image:
    """A photograph as the model sees it.

    Raises:
        BadInput: It cannot be, and why.
    """
    from fixtures.datasets.folder import decode

    try:
        return subject.geometry.fit(decode(Path(file).read_bytes()))
    except OSError as problem:
        raise BadInput(problem.strerror or f"cannot be decoded ({one_line(problem)})") from None
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    except Exception as problem:  # Pillow's decoders have exceptions of their own
        raise BadInput(f"cannot be decoded ({one_line(problem)})") from None


def load(options: argparse.Namespace) -> Classifier:
    """The model of the options, loaded as the audits load it.

    Raises:
        BadInput: It cannot be, or the loaders are not here.
    """
    enter()
    try:
        from fixtures.subjects.spec import find_subject
    except ModuleNotFoundError as problem:
        raise BadInput(f"{problem.name!r} is not installed; install camcore with the extra 'explain'") from None
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    subject = find_subject(options.model, weights=options.weights, device=device, layer=options.layer)
    for opt_in in subject.unsafe:
        tell(f"warning: {opt_in}")
    if subject.target_layer is None:
        raise BadInput(f"{options.model!r} has no layer whose output is a map of features; name one with --layer")
    return subject


def chosen_cams(names: Sequence[str]) -> dict[str, CamMethod]:
    """The methods of those names in their order; `all` stands for every one that needs the recording alone."""
    every = sorted(RECORDED)
    return {each: find_cam(each) for name in names for each in (every if name == "all" else [name])}


def list_cams() -> None:
    """Every method with the first line of its documentation."""
    for name in sorted(METHODS):
        first = (METHODS[name].__doc__ or "").strip().partition("\n")[0]
        kind = "" if name in RECORDED else "(some models only) " if name in PARTIAL else "(asks the model again) "
        say(f"{name:<20} {kind}{first}")


def made(output: str) -> Path:
    """The folder to write to, made if need be."""
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"cannot write to the folder {output!r} ({problem.strerror}); pass another -o DIR") from None
    return folder


def described(subject: Classifier) -> dict[str, Any]:
    """The model, as explanation.json has it."""
    return {
        "spec": subject.spec,
        "weights": subject.weights,
        "sha256": subject.sha256,
        "layer": subject.target_layer,
        "placement": None if subject.placement is None else asdict(subject.placement),
        "device": str(subject.device),
        "warnings": list(subject.unsafe),
    }


def fail(written: Written, what: str, why: str) -> None:
    """Note what could not be done; the same is told once."""
    failure = {"what": what, "why": why}
    if failure not in written.failed:
        written.failed.append(failure)
        tell(f"camcore explain: {what!r}: {why}")


def reason(problem: Exception) -> str:
    """Our own refusals as they are, any other error with its type; one line."""
    return " ".join(str(problem).split()) if isinstance(problem, ValueError) and str(problem) else one_line(problem)


def say(line: str) -> None:
    """One line of what was found."""
    _write(sys.stdout, line)


def tell(line: str) -> None:
    """One line about the work itself."""
    _write(sys.stderr, line)


def _write(stream: Any, line: str) -> None:
    # no control characters: a file name must not be able to move the cursor; and only letters the stream can carry
    encoding = stream.encoding or "utf-8"
    stream.write(printable(line).encode(encoding, errors="backslashreplace").decode(encoding) + "\n")
    stream.flush()
