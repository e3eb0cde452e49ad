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
# The energy is a linear program, so its solution is a vertex: many samples sit at the walls of
# their cells, and a small change of :math:`K` makes it jump. On the way there, after some tens of
# steps of Chambolle and Pock's method, :math:`u` is smoother and, if :math:`K` was learned for as
# many steps, nearer to the truth. So the number of steps belongs to the model; the one that comes
# with the package takes 30. ``benchmarks/speech_arms.py`` learned :math:`K` on speech:

at_walls = ((solution.x - x).abs() > 0.999 * half).double().mean()
print(f"{at_walls:.0%} of the samples of the solution are at a wall")

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())


def stored(name):
    return json.loads((root / f"benchmarks/results/{name}.json").read_text())["rows"]


arms = {row["gradient"]: row for row in stored("speech_arms")}
figure, ax = plt.subplots(figsize=(10, 4), layout="constrained")
shown = {
    "none: DCT": "DCT",
    "none: DCT, weighted": "DCT, weighted",
    "exact, L = 30": "learned for 30 steps, exact gradient",
    "no mask, L = 30": "learned for 30 steps, no mask",
    "no mask, 20 terms, L = 100": "learned for 100 steps, no mask",
}
for (name, label), color in zip(shown.items(), ("0.6", "0.3", "C0", "C1", "C2"), strict=True):
    curve = arms[name]["curve"]
    ax.loglog([int(k) for k in curve], list(curve.values()), ".-", color=color, label=label)
ax.set(xlabel="steps of the solver", ylabel="mean squared error, speech frames")
ax.set_yticks([6e-4, 8e-4, 1e-3, 1.2e-3])
ax.yaxis.set_major_formatter("{x:.1e}")
ax.yaxis.set_minor_formatter("")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
plt.show()

# %%
# The DCT with each row divided by the mean size of its coefficient, which needs no learning by
# gradients, comes within 6 % of what is learned, if it is stopped after 20 to 30 steps.
#
# Which gradient to learn by
# --------------------------
#
# The published programs leave out the walls of the cells in the backward pass, by a mask that is
# hardly ever 0. That is not the derivative of anything that was computed. Here the walls are left
# out altogether (no mask), beside the exact gradient of the same steps, from the same start:

counts = ("3", "30", "100", "400")
print(f"{'steps of the solver':28}" + "".join(f"{count:>10}" for count in counts))
for name, row in arms.items():
    print(f"{name:28}" + "".join(f"{row['curve'][count]:10.2e}" for count in counts))

# %%
# ``benchmarks/speech_gradients.py`` has the cosines with the exact gradient of the unrolled steps.
# The published mask and no mask are one, and the more steps, the less they have in common with the
# exact gradient: nothing is left of it after 1000. The exact gradient of 10 to 100 steps has next
# to nothing in common with that of the solution, from which these are far; after 1000 it has half:

columns = ("published mask", "no mask", "exact, 20 terms", "of the solution")
print(f"{'at':14}{'steps':>5}" + "".join(f"{column:>17}" for column in columns))
for row in stored("speech_gradients"):
    print(f"{row['at']:14}{row['steps']:5}" + "".join(f"{row[c]:17.2f}" for c in columns))

# %%
# Which wins depends on how one learns. Here, 2400 steps in about the same time each, step sizes
# halved every 600, one seed: the exact gradient, its average over :math:`K` nearby and those
# without walls end within 1 % of each other after 30 steps of the solver. Those with walls are 3 %
# better at the solution, and 7 % worse after 100 steps. With step sizes that fell linearly, those
# without walls were 5 % ahead in the end, and a third after the first 400 steps. A reason for a
# head start that fits what is known: as :math:`K` moves, samples hit walls and leave them, and the
# exact derivative, which holds between two such events, tells nothing of what lies behind the next,
# while one long step of learning passes many. Leaving out the walls gives the derivative of a
# problem whose solution moves freely: it tells where the samples are drawn to, which stays true
# over a long way. Short steps need it less.
#
# In the published setting
# ------------------------
#
# The published program starts from the plain DCT, learns the entries of :math:`K`, silent frames
# too, in steps of one size. ``benchmarks/speech_epoch.py`` does as it does, one epoch. There the
# published mask is far ahead of the exact gradient, at both step sizes; an average over :math:`K`
# nearby helps neither, and the exact derivative of the solution, which holds between two jumps of
# the vertex only, leads away from the start. The cosines of the published gradient with the exact
# one near the DCT are 0.11 through 10 steps, 0.10 through 30, 0.07 through 100, 0.03 through 1000.

epoch = {row["gradient, rate"]: row for row in stored("speech_epoch")}
shown = ("dev at 30 steps", "speech at 30 steps", "row lengths alone")
print(f"{'gradient, step size':52}" + "".join(f"{column:>20}" for column in shown))
for name, row in epoch.items():
    print(f"{name:52}" + "".join(f"{row[column]:20.2e}" for column in shown))

# %%
# The last column tells why: it has the rows of the DCT, which nobody learned, with the lengths of
# the rows that were. For the published mask, that is seven eighths of what was learned. The lengths
# it finds (below, over the frequencies of the DCT) go towards those of the weighted DCT, known
# without any gradient: low frequencies, which are strong in speech, should cost less. Along the
# lengths every frame pulls the same way, and the walls, if they are seen, stop the pull of each
# sample that sits at one. In all other directions the frames disagree, and Adam, which makes the
# steps of all entries equally long, turns disagreement into noise: it costs the exact gradient
# what its lengths gain. Start from the weighted DCT, let steps shrink, and nothing is left of the
# lead, as above.

figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
for name, color in {
    "none: DCT, weighted": "0.3",
    "published mask, 1e-4": "C1",
    "exact, 1e-4": "C0",
}.items():
    ax.plot(np.arange(320) * RATE / 640 / 1000, epoch[name]["lengths"], color=color, label=name)
ax.set(xlabel="kHz", ylabel="length of the row, of the longest", yscale="log")
ax.legend(frameon=False)
plt.show()

# %%
# How many steps to learn through
# -------------------------------
#
# ``benchmarks/speech_sweep.py``, on 2048 frames for three epochs, where the papers take 66 628 for
# twenty. The error against :math:`L` has its regimes (second panel): after the steps that were
# learned through, it is least at some 10 to 30 and grows; at the solution it hardly depends on
# :math:`L`, and gains little over the weighted DCT, the dotted line. The operator learned through
# 10 steps does best after 20 and soon worse, the others after some 30 still, whatever they were
# learned through. The last 30 terms alone, frozen at the last iterate, store a fraction: they did
# a little worse after 10 and 30 steps, and a little better after 80 and 100, than all steps.
# Through 1000 steps, one epoch of 8192 frames, they gave the operator that is best after hundreds
# of steps; all of the 1000 gave one that is worse than none, for 120 times the memory.
#
# On the papers' own schedule, all frames twenty times in steps of 1e-5, all 30 steps learn an
# operator for these alone, silence included: beyond them it is worse than none, on frames with
# speech. Of the 30 terms at the 30th iterate this is less so. Through 80 steps both learn one as
# good as that of the short schedule, the terms one 2 % better in two thirds of the time and a tenth
# of the memory (one seed).

sweep = {row["learned through"]: row for row in stored("speech_sweep")}
names = [name for name in sweep if name.startswith("L = ")]
short = [name for name in names if "1000" not in name]
figure, axes = plt.subplots(1, 4, figsize=(15, 5), layout="constrained", width_ratios=(3, 2, 1, 1))
axes[0].set_prop_cycle(color=plt.colormaps["tab20"].colors)
for name in names:
    curve = sweep[name]["curve"]
    style = ".-" if name.split(" = ")[1].isdigit() else ".:" if name in short else "k.--"
    if name != "L = 1000, 8192 frames":  # off the scale
        axes[0].loglog([int(k) for k in curve], list(curve.values()), style, label=name)
axes[0].set(xlabel="steps of the solver", ylabel="mean squared error, speech frames")
axes[0].set_yticks([6e-4, 8e-4, 1e-3])
axes[0].yaxis.set_major_formatter("{x:.1e}")
axes[0].yaxis.set_minor_formatter("")
lines = axes[0].get_legend_handles_labels()
figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
full = {int(name[4:]): sweep[name] for name in short if name[4:].isdigit()}
cut = {int(name[4:].split(",")[0]): sweep[name] for name in short if name.endswith("30 terms")}
for rows, color, label in ((full, "C0", "all steps"), (cut, "C1", "30 terms")):
    for column, style in (("at L steps", "o-"), ("at the solution", "s--")):
        values = [row[column] for row in rows.values()]
        axes[1].loglog(list(rows), values, style, color=color, label=f"{label}, {column}")
axes[1].axhline(sweep["nothing: DCT, weighted"]["at the solution"], color="0.7", ls=":")
axes[1].set(xlabel="L, the steps learned through")
axes[1].set_xticks(list(full), [str(count) for count in full])
axes[1].set_yticks([6e-4, 7e-4, 8e-4, 9e-4])
axes[1].yaxis.set_major_formatter("{x:.1e}")
for axis in (axes[1].xaxis, axes[1].yaxis):
    axis.set_minor_formatter("")
axes[1].legend(frameon=False, fontsize="small", loc="center", bbox_to_anchor=(0.55, 0.6))
for ax, column in zip(axes[2:], ("ms a step", "MB stored"), strict=True):
    labels = [name.replace("the papers' schedule", "papers'") for name in short]
    ax.barh(labels, [sweep[name][column] for name in short], color="0.6")
    ax.invert_yaxis()
    ax.set(xlabel=column)
axes[3].set(yticks=[])
plt.show()

# %%
# What it costs to solve with them, to a gap of 1e-4, beside the condition of :math:`K`, which is
# mostly that of the lengths of its rows. One was pulled towards orthonormal rows while it learned:
# its solution takes a sixth fewer steps, with no more error after 30 of them, and 4 % more at the
# solution. (Medians of 96 frames, of 12 where the schedule is the papers'.)

print(f"{'learned through':38} {'at L steps':>10} {'solution':>9} {'condition':>9} {'steps':>6}")
for name in names:
    row = sweep[name]
    print(f"{name:38} {row['at L steps']:10.2e} {row['at the solution']:9.2e} "
          f"{row['condition']:9.1f} {row['steps to gap']:6.0f}")  # fmt: skip

# %%
# What the solution costs
# -----------------------
#
# The solution itself, when it is wanted (``benchmarks/speech_solving.py``): interior points do not
# care how badly the rows of a learned :math:`K` are scaled, first-order steps do.

print(f"{'K':8} {'solver':22} {'there':>6} {'median':>7} {'most':>6} {'ms a frame':>10}")
for row in stored("speech_solving"):
    print(f"{row['K']:8} {row['solver']:22} {row['there']:6.1%} {row['median steps']:7.0f} "
          f"{row['most steps']:6.0f} {row['ms a frame']:10.0f}")  # fmt: skip

# %%
# How good on speech
# ------------------
#
# Mean squared errors on speech that :math:`K` was neither learned from nor chosen on
# (``benchmarks/speech_dequantize.py``). Four of ten frames are silent: there 0 lies in every cell,
# is the simplest signal for any :math:`K`, and most of what is gained over the quantised sound is
# gained. So speech frames are told apart. A mean of five neighbours, cut to the cells, is a simple
# method that is hard to beat; the DCT does not. Frames that overlap are as important as what
# was learned: each is a different vertex, or on the way to it, and their mean is none.

print(f"{'method':36} {'speech':>9} {'all':>9}  on")
for row in stored("speech_dequantize"):
    print(f"{row['method']:36} {row['speech']:9.3e} {row['all']:9.3e}  {row['on']}")
