r"""
Sound of four bits
==================

Sound was rounded to sixteen levels. Each sample tells the *cell* that it came from, not its value.
Which of all the signals that would have been rounded so is the right one? The one that a learned
operator :math:`K` finds simplest:

.. math::
   u(K, x) = \underset{u}{\operatorname{argmin}} \; |K u|_1
   \quad\text{with}\quad |u - x|_\infty \le \eta

on frames of 20 ms, with :math:`\eta` half a cell. ``bilevel dequantize coarse.wav -o fine.wav``
does this with a :math:`K` learned from speech, which comes with the package.
"""

# %%
# A sound to look at
# ------------------
#
# Vowels of a simple voice: a buzz through the resonances of a throat.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.signal import lfilter

import bilevel as bl
from bilevel.tasks import dequantize, hearing
from bilevel.tasks.audio import Audio

RATE, BITS = 16000, 4
VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010),
          "o": (570, 840, 2410), "u": (300, 870, 2240)}  # fmt: skip


def voice(vowels, seconds=0.35, seed=0):
    """Pulses at a falling pitch, formed by three resonances (Hz)."""
    rng, parts = np.random.default_rng(seed), []
    n = round(seconds * RATE)
    for vowel in vowels:
        pitch = np.linspace(140, 95, n) * (1 + 0.01 * rng.standard_normal(n).cumsum() / n**0.5)
        phase = np.cumsum(pitch) / RATE
        sound = lfilter([1], [1, -0.96], np.diff(np.floor(phase), prepend=0.0))
        for k, hertz in enumerate(VOWELS[vowel]):
            radius, angle = np.exp(-np.pi * (60 + 40 * k) / RATE), 2 * np.pi * hertz / RATE
            sound = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], sound)
        parts.append(sound / np.abs(sound).max() * np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 0.7)
    whole = np.concatenate(parts)
    return Audio(whole[None] / np.abs(whole).max(), RATE)


clean = voice("aeiou")
model, config = dequantize.load(None)
sounds = {"clean": clean, **hearing.answers(model, clean, BITS)}
for name, sound in sounds.items():
    error = np.square(sound.samples - clean.samples).mean()
    if name != "clean":
        print(f"{name:30} mean squared error {error:.2e}")

# %%
# The quantiser's error is noise at all frequencies. The mean of five neighbours takes away the
# higher ones, with what was there of the voice. The learned operator knows better which
# frequencies come together.


def spectrogram(axes, sound, title):
    frames = np.lib.stride_tricks.sliding_window_view(sound.samples[0], 320)[::80]
    window = np.hanning(320)
    levels = 20 * np.log10(np.abs(np.fft.rfft(frames * window)) * 2 / window.sum() + 1e-6)
    axes.imshow(levels.T, origin="lower", aspect="auto", cmap="magma", vmin=-90, vmax=-20,
                extent=(0, sound.samples.shape[1] / RATE, 0, RATE / 2000))  # fmt: skip
    axes.set(title=title, xlabel="seconds")


figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, sound) in zip(axes, sounds.items(), strict=True):
    spectrogram(ax, sound, name.split(",")[0])
axes[0].set(ylabel="kHz")
plt.show()

# %%
# And the samples themselves: always inside their cells.

part = slice(8000, 8140)
figure, ax = plt.subplots(figsize=(11, 3.2), layout="constrained")
x, half = sounds[hearing.QUANTIZED].samples[0, part], dequantize.radius(BITS)
ax.fill_between(range(140), x - half, x + half, step="mid", color="0.9", label="cells")
ax.plot(clean.samples[0, part], color="black", lw=1, label="clean")
ax.plot(sounds[hearing.LEARNED].samples[0, part], color="tab:blue", label="learned")
ax.legend()
ax.set(xlabel="sample")
plt.show()

# %%
# The energy, as it is written
# ----------------------------
#
# ``layers.Dequantize`` owns :math:`K`. Nothing in the solvers or strategies knows of it:

x = torch.from_numpy(sounds[hearing.QUANTIZED].samples[0, 7680:8320].reshape(2, 320))
K = model.analysis.detach().double()
energy = bl.L1() @ bl.Matrix(K) + bl.Box(x - half, x + half)
solution = bl.solve(energy, x0=x, solver=bl.LinearProgram(), tol=1e-8)
print(f"gap {solution.gap.max():.0e} after {solution.iterations.tolist()} steps")

# %%
# Why the solution is not the best answer
# ---------------------------------------
#
# The energy is a linear program, so its solution is a vertex: a good part of the samples sit at the
# walls of their cells, and a small change of :math:`K` makes it jump. On the way there, after some
# tens of steps of Chambolle and Pock's method, :math:`u` is smoother and, if :math:`K` was learned
# for as many steps, nearer to the truth. So the number of steps belongs to the model.
# ``benchmarks/speech_arms.py`` learned :math:`K` on speech for 10, 30 and 100 steps:

at_walls = ((solution.x - x).abs() > 0.999 * half).double().mean()
print(f"{at_walls:.0%} of the samples of the solution are at a wall")

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())


def stored(name):
    return json.loads((root / f"benchmarks/results/{name}.json").read_text())["rows"]


arms = {row["gradient"]: row for row in stored("speech_arms")}
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
shown = {
    "none: DCT": "DCT",
    "none: DCT, weighted": "DCT, weighted",
    "no mask, L = 10": "learned for 10 steps",
    "no mask, L = 30": "learned for 30 steps",
    "no mask, 20 terms, L = 100": "learned for 100 steps",
}
for (name, label), color in zip(shown.items(), ("0.6", "0.3", "C0", "C1", "C2"), strict=True):
    row = arms[name]
    counts = [int(k) for k in row["curve"]]
    ax.loglog(counts, list(row["curve"].values()), ".-", color=color, label=label)
    ax.axhline(row["at the solution"], color=color, lw=0.8, ls=":")
ax.set(xlabel="steps of the solver", ylabel="mean squared error, speech frames")
ax.yaxis.set_major_formatter("{x:.1e}")
ax.yaxis.set_minor_formatter("{x:.1e}")
ax.legend(title="dotted: the solution itself")
plt.show()
