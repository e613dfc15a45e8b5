"""The folder that a run writes: the names of its files, and those that hold the result as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackalign.io.errors import StackWriteError
from stackalign.io.tables import write_table
from stackalign.io.transforms import save_transforms

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

    from stackalign.core.registration import Registration


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run.

    Parameters
    ----------
    path : Path
        The folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | PathLike[str]) -> RunFolder:
        """Return the folder, made if it is not there; StackWriteError if that fails."""
        folder = Path(path).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StackWriteError(f"cannot make the folder {folder}: there is a file of this name") from error
        except OSError as error:
            raise StackWriteError(error.errno, f"cannot make the folder {folder}: {error.strerror}") from error
        return cls(folder)

    @property
    def aligned(self) -> Path:
        """The aligned stack."""
        return self.path / "aligned.tif"

    @property
    def transforms_json(self) -> Path:
        """The transforms, everything."""
        return self.path / "transforms.json"

    @property
    def transforms_csv(self) -> Path:
        """The transforms as a table."""
        return self.path / "transforms.csv"

    @property
    def quality_csv(self) -> Path:
        """How well each frame was aligned."""
        return self.path / "quality.csv"

    @property
    def recipe(self) -> Path:
        """What was done, ready to be run again."""
        return self.path / "recipe.yaml"

    @property
    def report(self) -> Path:
        """The result for people to look at."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What the program said while it ran."""
        return self.path / "run.log"

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, whether they are there or not."""
        return (
            self.aligned,
            self.transforms_json,
            self.transforms_csv,
            self.quality_csv,
            self.recipe,
            self.report,
            self.log,
        )

    def write_registration(self, registration: Registration, measured: pd.DataFrame | None = None) -> None:
        """Write ``transforms.json``, ``transforms.csv`` and ``quality.csv``.

        Parameters
        ----------
        registration : Registration
            The result. The same transforms and provenance give the same bytes, but for ``provenance.times``.
        measured : DataFrame, optional
            Further columns of ``quality.csv`` with a row a frame, joined on ``frame`` where it has that column.

        Raises
        ------
        StackWriteError
            If a file cannot be written.
        ValueError
            If ``measured`` has another number of rows than there are frames.
        """
        quality = registration.quality.to_frame()
        if measured is not None:
            if len(measured) != len(quality):
                raise ValueError(f"{len(measured)} rows of measures for {len(quality)} frames")
            extra = measured.drop(columns=[c for c in measured.columns if c in quality.columns])
            last = ["flagged", "reason"]
            quality = quality.drop(columns=last).join(extra.reset_index(drop=True)).join(quality[last])
        save_transforms(self.transforms_json, registration.transforms, registration.provenance)
        save_transforms(self.transforms_csv, registration.transforms)
        write_table(self.quality_csv, quality)
