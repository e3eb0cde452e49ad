"""The run folder: everything a learning run leaves behind, readable without bilevel.

config.toml          what was run: enough to build the model again
model.safetensors    the learned parameters
metrics.csv          one row a step
certificate.json     of the last hypergradient
tensorboard/         the same numbers as events, where TensorBoard is installed
checkpoints/         the two newest states to resume from
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import socket
import time
import tomllib
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import filelock
from torch import Tensor, nn

from bilevel.differentiation import Certificate
from bilevel.learning import checkpoint
from bilevel.learning.checkpoint import writing

Record = dict[str, Any]  # one row of metrics.csv: numbers, None where there is nothing to tell


class RunFolder:
    """A locked run folder, open for writing. `with RunFolder(path) as run: ...`"""

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = Path(path)
        self.checkpoints = checkpoint.Checkpoints(self.path / "checkpoints")
        self._writer = _summary_writer()
        self._rows: TextIO | None = None
        self._events: Any = None  # a SummaryWriter
        self._began = 0.0  # on the clock, pauses left out
        with writing(self.path):
            is_file = self.path.exists() and not self.path.is_dir()
            if not is_file:
                self.path.mkdir(parents=True, exist_ok=True)
        if is_file:
            raise NotADirectoryError(f"{self.path} is a file: choose another folder for the run.")
        self._lock()
        try:
            self._refuse_strangers(resume)
            for leftover in self.path.rglob(".*.tmp"):  # of a write that a kill cut short
                leftover.unlink(missing_ok=True)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close_files()
        if self._held.is_locked:
            with suppress(OSError):  # of a folder that was closed: it would hide what went wrong
                self._holder.unlink()
            self._held.release()

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write config.toml."""
        import tomli_w

        checkpoint.write_bytes(self.path / "config.toml", tomli_w.dumps(_plain(config)).encode())

    def rewind(self, step: int) -> list[Record]:
        """Cut what was recorded after `step` and return the rows up to it; then `append`."""
        self._close_files()
        path = self.path / "metrics.csv"
        history = [row for row in read_metrics(self.path) if row["step"] <= step]
        checkpoint.write_bytes(path, _table(history, header=True).encode())
        with writing(path):
            self._rows = path.open("a", encoding="utf-8", newline="")
        self._restart_events(history)
        return history

    def append(self, record: Record) -> None:
        """One more row, of the same columns as the others."""
        assert self._rows is not None, "rewind opens the table"
        with writing(self.path / "metrics.csv"):
            self._rows.write(_table([record], header=self._rows.tell() == 0))
            self._rows.flush()  # survives a kill; `save` makes it survive a power cut
        self._append_event(record)

    def save(
        self, step: int, state: Any, model: Mapping[str, Tensor], certificate: Certificate | None
    ) -> None:
        """A checkpoint, and the model and the certificate that belong to it."""
        assert self._rows is not None, "rewind opens the table"
        with writing(self.path / "metrics.csv"):  # no checkpoint before its rows
            os.fsync(self._rows.fileno())
        self.checkpoints.save(step, state)
        checkpoint.write(self.path / "model.safetensors", dict(model))
        numbers = {} if certificate is None else certificate.as_dict()
        text = json.dumps(_strict({"step": step, **numbers}), indent=2, allow_nan=False)
        checkpoint.write_bytes(self.path / "certificate.json", f"{text}\n".encode())

    def _close_files(self) -> None:
        for file in (self._rows, self._events):
            if file is not None:
                with suppress(OSError):  # of a full disk: told when the row was written
                    file.close()
        self._rows = self._events = None

    def _lock(self) -> None:
        # the system drops this lock when its process dies, however it dies: none is ever stale
        self._held = filelock.FileLock(self.path / ".lock")
        self._holder = self.path / ".holder"
        with writing(self.path):
            try:
                self._held.acquire(timeout=0)
            except filelock.Timeout:
                try:
                    holder = self._holder.read_text()
                except OSError:  # it is just starting or ending
                    holder = "unknown"
                raise RuntimeError(
                    f"Run folder {self.path} is in use by another run (pid {holder}): "
                    "wait until it ends, stop it, or choose another folder."
                ) from None
            self._holder.write_text(f"{os.getpid()} on {socket.gethostname()}")

    def _refuse_strangers(self, resume: bool) -> None:
        first_traces = {".lock", ".holder", ".config.toml.tmp"}  # all there is after an early kill
        names = sorted({p.name for p in self.path.iterdir()} - first_traces)
        if names and not resume:
            raise FileExistsError(
                f"Run folder {self.path} is not empty ({len(names)} entries, {names[0]!r} among "
                "them): pass resume=True to go on with its run, or choose another folder."
            )
        if names and resume and "config.toml" not in names:
            raise FileNotFoundError(
                f"{self.path} holds no config.toml, so it is not a run folder to resume "
                f"({len(names)} entries, {names[0]!r} among them): check the path."
            )

    def _restart_events(self, history: list[Record]) -> None:
        """Events cannot be cut, and a kill loses some: they are written anew from the table."""
        if self._writer is None:
            return
        folder = self.path / "tensorboard"
        self._began = time.time() - (history[-1]["seconds"] if history else 0.0)
        with writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
            self._events = self._writer(str(folder), flush_secs=10)
        for record in history:
            self._append_event(record)

    def _append_event(self, record: Record) -> None:
        if self._events is None:
            return
        with writing(self.path / "tensorboard"):
            for name, value in record.items():
                if name != "step" and value is not None:
                    when = self._began + record["seconds"]
                    self._events.add_scalar(name, value, record["step"], walltime=when)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            "TensorBoard is not installed, so no events are written (metrics.csv has the same "
            "numbers). To have them: pip install tensorboard.",
            stacklevel=5,  # the caller of learn
        )
        return None
    return SummaryWriter


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """config.toml of a run folder."""
    path = Path(folder) / "config.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} holds no config.toml, so it is not a run folder: check the path."
        ) from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ValueError(f"{path} cannot be read ({error}): restore it or run again.") from error


def read_model(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The parameters in model.safetensors, for `model.load_state_dict`. Never unpickles."""
    path = Path(folder) / "model.safetensors"
    try:
        return checkpoint.read(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors: is it a run folder, and did its run start?"
        ) from None
    except checkpoint.Damaged as error:
        raise checkpoint.Damaged(f"{error} Resume its run (resume=True) or learn again.") from error


def fill(model: nn.Module, state: Mapping[str, Tensor], folder: str | os.PathLike[str]) -> None:
    """Put the parameters of a run folder, as `read_model` gives them, into the model that its
    config names; refused, and the model as it was, where they do not fit or are not finite."""
    expected = {k: (tuple(v.shape), v.dtype) for k, v in model.state_dict().items()}
    received = {k: (tuple(v.shape), v.dtype) for k, v in state.items()}
    if received != expected:
        raise ValueError(
            f"{Path(folder) / 'model.safetensors'} does not fit the model in config.toml: it holds "
            f"{received}, needed is {expected}. Check that both files come from the same run."
        )
    if not all(bool(v.isfinite().all()) for v in state.values()):
        raise ValueError(f"{folder} holds parameters that are not finite. Learn it again.")
    model.load_state_dict(state)


def read_metrics(folder: str | os.PathLike[str]) -> list[Record]:
    """The rows of metrics.csv, without a last one that a kill cut short."""
    path = Path(folder) / "metrics.csv"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        header, *rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))) or [[]]
        records = [dict(zip(header, map(_number, row), strict=True)) for row in rows]
        if any(type(r.get("step")) is not int or r.get("seconds") is None for r in records):
            raise ValueError("a row without its step or its time")
        return records
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): repair or delete it (the run can do without)."
        ) from error


def _table(records: list[Record], *, header: bool) -> str:
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(records)  # floats by repr: they read back to the last digit
    return text.getvalue()


def _number(text: str) -> int | float | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        return float(text)


def _plain(value: Any) -> Any:
    """What TOML can hold: None is left out, tuples are lists, paths are strings."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _strict(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What strict JSON can hold: a number that is not finite becomes its name."""
    return {
        k: str(v) if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in numbers.items()
    }
