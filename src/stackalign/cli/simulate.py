"""``stackalign simulate``: a movie whose motion is known, and that motion beside it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from stackalign.cli.options import Debug, Gaussian, Overwrite, Peak, Quiet, Settings, bad, refuse_both, settings_of


class SimulateCommand(TyperCommand):
    """Adds the parameters of the record to the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the parameters."""
        from stackalign.cli.methods import parameter_table
        from stackalign.core.simulate import Simulation

        super().format_help(ctx, formatter)
        formatter.write(f"\nParameters (--set key=value):\n{parameter_table(Simulation)}\n")


def simulate(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The movie: .tif, .ome.tif, .zarr, .npy or .mat.")
    ],
    gaussian: Gaussian = None,
    peak: Peak = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a movie that moves in a known way; its true transforms go beside it, as NAME.truth.json.

    A .mat file holds the movie as Y, (y, x, t), and the transforms as tau, as the published REALS scripts have them.
    """
    from stackalign.cli.files import refuse_existing
    from stackalign.cli.records import checked
    from stackalign.cli.terminal import finish
    from stackalign.core import simulate as simulation
    from stackalign.core.trial import with_noise
    from stackalign.io.matlab import write_mat
    from stackalign.io.transforms import save_transforms
    from stackalign.io.write import write_stack_work

    refuse_both(gaussian, peak)
    record = checked(simulation.Simulation, settings_of(settings))
    if gaussian is not None or peak is not None:
        record = with_noise(record, gaussian=gaussian, peak=peak)
    truth_file = output.with_name(f"{plain_stem(output)}.truth.json")
    refuse_existing(overwrite, output, truth_file)
    if not output.name.lower().endswith((".tif", ".tiff", ".zarr", ".npy", ".mat")):
        raise bad("--output", f"{output.name!r} must end in .tif, .ome.tif, .zarr, .npy or .mat")
    stack, truth = simulation.simulate(record)
    if output.suffix.lower() == ".mat":
        write_mat(output, truth.transforms, stack)
    else:
        finish(write_stack_work(output, stack), quiet=quiet)
    save_transforms(truth_file, truth.transforms, {"simulation": record.model_dump(mode="json")})
    if not quiet:
        typer.echo(f"{stack} -> {output}, its true transforms -> {truth_file}")


def plain_stem(path: Path) -> str:
    """Return a file's name without its ending, ``.ome.tif`` counting as one."""
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem
