"""Sound files: WAV in and out."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from bilevel.learning.checkpoint import write_bytes
from bilevel.tasks.images import check_free


class AudioError(ValueError):
    """A sound that cannot be read, used or written; the message names the file."""


@dataclass(frozen=True, eq=False)
class Audio:
    """Samples in [-1, 1]."""

    samples: np.ndarray  # (channels, n), float64
    rate: int  # a second
    dtype: np.dtype = np.dtype(np.int16)  # in the file
    path: str = "the sound"  # for messages

    def with_samples(self, samples: np.ndarray) -> Audio:
        return replace(self, samples=samples)


def read(path: str | Path) -> Audio:
    """PCM of 8, 16, 24 or 32 bits, or floats; mono or more channels."""
    path = Path(path)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", wavfile.WavFileWarning)
            rate, data = wavfile.read(path)
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist. Check the path.") from None
    except Exception as error:  # damaged files raise nearly anything
        raise AudioError(
            f"{path} cannot be read as a WAV file ({error}). Convert it to WAV first."
        ) from None
    if any("prematurely" in str(warning.message) for warning in told):  # others: no sound
        warnings.warn(
            f"{path} ends before its header says: {len(data)} samples were read.", stacklevel=2
        )
    samples = np.atleast_2d(data.T).astype(np.float64)
    if data.dtype.kind == "u":
        samples = samples / 128 - 1
    elif data.dtype.kind == "i":  # 24 bits come as the upper ones of 32
        samples /= 2.0 ** (8 * data.dtype.itemsize - 1)
    if not np.isfinite(samples).all():
        raise AudioError(f"{path} holds NaN or inf: it was damaged before. Write it again.")
    if not samples.size:
        raise AudioError(f"{path} holds no samples.")
    return Audio(samples, rate, data.dtype, str(path))


def encode(audio: Audio) -> bytes:
    """As a WAV file, with the kind of numbers that was read; at least 16 bits."""
    stream = io.BytesIO()
    if audio.dtype.kind == "f":
        data = audio.samples.astype(audio.dtype)
    else:
        kind = np.dtype(np.int32 if audio.dtype.itemsize > 2 else np.int16)
        scale = 2.0 ** (8 * kind.itemsize - 1)
        data = np.rint(audio.samples * scale).clip(-scale, scale - 1).astype(kind)
    wavfile.write(stream, audio.rate, data.T)
    return stream.getvalue()


def write(path: str | Path, audio: Audio, force: bool = False) -> None:
    """Complete or not at all."""
    check_writable(Path(path), force)
    write_bytes(Path(path), encode(audio))


def check_writable(path: Path, force: bool = False) -> None:
    """Before the long work: the suffix is known, the folder is there, no file is in the way."""
    if path.suffix.lower() != ".wav":
        raise AudioError(f"The output {path} is not a WAV file. Name it NAME.wav.")
    check_free(path, force)
