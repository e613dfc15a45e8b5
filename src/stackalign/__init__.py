"""Align image stacks: drift and motion correction, joint alignment, multimodal registration.

The public names below are imported when first used, so that ``import stackalign`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AlignmentConfig": "config",
    "AmbiguousAxesError": "io.errors",
    "Box": "core.geometry",
    "Cancelled": "core.work",
    "ChannelChoiceError": "io.errors",
    "CrossCorrelation": "core.translation.registrar",
    "Decomposition": "core.lowrank.decomposition",
    "DeepHomography": "core.deep.registrar",
    "Displacement": "core.displacement",
    "DisplacementModel": "core.displacement",
    "Done": "core.work",
    "Failed": "core.work",
    "FileInfo": "io.info",
    "FitStatus": "core.spots.gaussian",
    "FrameError": "core.stack",
    "FrameQuality": "core.registration",
    "GaussianSpot": "core.spots.gaussian",
    "HeldOut": "core.spots.held_out",
    "ImageSetChoiceError": "io.errors",
    "ImageStack": "core.stack",
    "InputSpec": "config",
    "LucasKanade": "core.lucas_kanade.registrar",
    "Multimodal": "core.multimodal.registrar",
    "OutputSpec": "config",
    "PairRegistration": "core.pair",
    "ParticleTracking": "core.spots.registrar",
    "Pick": "core.spots.picks",
    "PicksReadError": "io.errors",
    "Preprocess": "core.frames.preprocess",
    "Progress": "core.work",
    "Quality": "core.quality",
    "Reals": "core.lowrank.registrar",
    "RecipeError": "config",
    "Registrar": "core.registration",
    "Registration": "core.registration",
    "RunFolder": "io.run_folder",
    "RunResult": "pipeline",
    "Simulated": "core.simulate",
    "Simulation": "core.simulate",
    "SpotFit": "core.spots.gaussian",
    "SpotFits": "core.spots.gaussian",
    "StackReadError": "io.errors",
    "StackWriteError": "io.errors",
    "TableReadError": "io.errors",
    "TrackMotion": "core.spots.motion",
    "TrackSet": "core.spots.tracks",
    "Transform": "core.transform",
    "TransformModel": "core.transform",
    "TransformSeries": "core.transform_series",
    "TransformsReadError": "io.errors",
    "Truth": "core.simulate",
    "WarpOptions": "core.warping.warp",
    "WorkCancelled": "core.work",
    "box_at": "core.spots.detect",
    "describe": "io.info",
    "drain": "core.work",
    "fit_spot": "core.spots.fit",
    "fit_spots": "core.spots.fit",
    "hold_out": "core.spots.held_out",
    "load_provenance": "io.transforms",
    "load_recipe": "config",
    "load_sample": "samples",
    "load_sample_truth": "samples",
    "load_transforms": "io.transforms",
    "measure": "core.quality",
    "measure_work": "core.quality",
    "motion_from_tracks": "core.spots.motion",
    "moved": "core.simulate",
    "read_channels": "io.read",
    "read_picks": "io.picks",
    "read_stack": "io.read",
    "read_table": "io.tables",
    "register": "pipeline",
    "register_pair": "core.pair",
    "register_work": "pipeline",
    "run": "pipeline",
    "run_work": "pipeline",
    "sample_names": "samples",
    "sample_path": "samples",
    "save_recipe": "config",
    "save_transforms": "io.transforms",
    "set_threads": "core.threads",
    "simulate": "core.simulate",
    "suggest_picks": "core.spots.detect",
    "threads": "core.threads",
    "track_spots": "core.spots.track",
    "valid_mask": "core.warping.resample",
    "warp": "core.warping.warp",
    "warp_frame": "core.warping.resample",
    "write_picks": "io.picks",
    "write_script_output": "script_output",
    "write_stack": "io.write",
    "write_stack_work": "io.write",
    "write_table": "io.tables",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'stackalign' has no attribute {name!r}") from None
    value = getattr(import_module(f"stackalign.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if TYPE_CHECKING:
    from stackalign.config import AlignmentConfig as AlignmentConfig
    from stackalign.config import InputSpec as InputSpec
    from stackalign.config import OutputSpec as OutputSpec
    from stackalign.config import RecipeError as RecipeError
    from stackalign.config import load_recipe as load_recipe
    from stackalign.config import save_recipe as save_recipe
    from stackalign.core.deep.registrar import DeepHomography as DeepHomography
    from stackalign.core.displacement import Displacement as Displacement
    from stackalign.core.displacement import DisplacementModel as DisplacementModel
    from stackalign.core.frames.preprocess import Preprocess as Preprocess
    from stackalign.core.geometry import Box as Box
    from stackalign.core.lowrank.decomposition import Decomposition as Decomposition
    from stackalign.core.lowrank.registrar import Reals as Reals
    from stackalign.core.lucas_kanade.registrar import LucasKanade as LucasKanade
    from stackalign.core.multimodal.registrar import Multimodal as Multimodal
    from stackalign.core.pair import PairRegistration as PairRegistration
    from stackalign.core.pair import register_pair as register_pair
    from stackalign.core.quality import Quality as Quality
    from stackalign.core.quality import measure as measure
    from stackalign.core.quality import measure_work as measure_work
    from stackalign.core.registration import FrameQuality as FrameQuality
    from stackalign.core.registration import Registrar as Registrar
    from stackalign.core.registration import Registration as Registration
    from stackalign.core.simulate import Simulated as Simulated
    from stackalign.core.simulate import Simulation as Simulation
    from stackalign.core.simulate import Truth as Truth
    from stackalign.core.simulate import moved as moved
    from stackalign.core.simulate import simulate as simulate
    from stackalign.core.spots.detect import box_at as box_at
    from stackalign.core.spots.detect import suggest_picks as suggest_picks
    from stackalign.core.spots.fit import fit_spot as fit_spot
    from stackalign.core.spots.fit import fit_spots as fit_spots
    from stackalign.core.spots.gaussian import FitStatus as FitStatus
    from stackalign.core.spots.gaussian import GaussianSpot as GaussianSpot
    from stackalign.core.spots.gaussian import SpotFit as SpotFit
    from stackalign.core.spots.gaussian import SpotFits as SpotFits
    from stackalign.core.spots.held_out import HeldOut as HeldOut
    from stackalign.core.spots.held_out import hold_out as hold_out
    from stackalign.core.spots.motion import TrackMotion as TrackMotion
    from stackalign.core.spots.motion import motion_from_tracks as motion_from_tracks
    from stackalign.core.spots.picks import Pick as Pick
    from stackalign.core.spots.registrar import ParticleTracking as ParticleTracking
    from stackalign.core.spots.track import track_spots as track_spots
    from stackalign.core.spots.tracks import TrackSet as TrackSet
    from stackalign.core.stack import FrameError as FrameError
    from stackalign.core.stack import ImageStack as ImageStack
    from stackalign.core.threads import set_threads as set_threads
    from stackalign.core.threads import threads as threads
    from stackalign.core.transform import Transform as Transform
    from stackalign.core.transform import TransformModel as TransformModel
    from stackalign.core.transform_series import TransformSeries as TransformSeries
    from stackalign.core.translation.registrar import CrossCorrelation as CrossCorrelation
    from stackalign.core.warping.resample import valid_mask as valid_mask
    from stackalign.core.warping.resample import warp_frame as warp_frame
    from stackalign.core.warping.warp import WarpOptions as WarpOptions
    from stackalign.core.warping.warp import warp as warp
    from stackalign.core.work import Cancelled as Cancelled
    from stackalign.core.work import Done as Done
    from stackalign.core.work import Failed as Failed
    from stackalign.core.work import Progress as Progress
    from stackalign.core.work import WorkCancelled as WorkCancelled
    from stackalign.core.work import drain as drain
    from stackalign.io.errors import AmbiguousAxesError as AmbiguousAxesError
    from stackalign.io.errors import ChannelChoiceError as ChannelChoiceError
    from stackalign.io.errors import ImageSetChoiceError as ImageSetChoiceError
    from stackalign.io.errors import PicksReadError as PicksReadError
    from stackalign.io.errors import StackReadError as StackReadError
    from stackalign.io.errors import StackWriteError as StackWriteError
    from stackalign.io.errors import TableReadError as TableReadError
    from stackalign.io.errors import TransformsReadError as TransformsReadError
    from stackalign.io.info import FileInfo as FileInfo
    from stackalign.io.info import describe as describe
    from stackalign.io.picks import read_picks as read_picks
    from stackalign.io.picks import write_picks as write_picks
    from stackalign.io.read import read_channels as read_channels
    from stackalign.io.read import read_stack as read_stack
    from stackalign.io.run_folder import RunFolder as RunFolder
    from stackalign.io.tables import read_table as read_table
    from stackalign.io.tables import write_table as write_table
    from stackalign.io.transforms import load_provenance as load_provenance
    from stackalign.io.transforms import load_transforms as load_transforms
    from stackalign.io.transforms import save_transforms as save_transforms
    from stackalign.io.write import write_stack as write_stack
    from stackalign.io.write import write_stack_work as write_stack_work
    from stackalign.pipeline import RunResult as RunResult
    from stackalign.pipeline import register as register
    from stackalign.pipeline import register_work as register_work
    from stackalign.pipeline import run as run
    from stackalign.pipeline import run_work as run_work
    from stackalign.samples import load_sample as load_sample
    from stackalign.samples import load_sample_truth as load_sample_truth
    from stackalign.samples import sample_names as sample_names
    from stackalign.samples import sample_path as sample_path
    from stackalign.script_output import write_script_output as write_script_output
