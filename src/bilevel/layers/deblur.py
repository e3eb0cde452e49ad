"""Total-variation deblurring, with the kernel known, as modules that own their weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from ..operators import Blur, Mask, Periodic
from ..solvers import PrimalDual
from ..terms import Box, LeastSquares
from ..terms.composition import Composition
from .weights import OneWeight, TVLayer, WeightOfNoise

SOLVER = PrimalDual(step_size=3.0)  # with BALANCE, a third of the steps of the default
BALANCE = 2.0  # the data's operator is scaled: its norm is nearer to that of the differences


@dataclass(frozen=True)
class Scene:
    """A blurred image's place in the larger scene that it tells of.

    What a camera sees near its frame comes from up to half a kernel beyond it. So the unknown
    reaches as far as the kernel does, and the data counts inside the frame only: nothing is
    assumed of the outside (Almeida, Figueiredo 2013). Beyond the reach of the kernel the scene
    is enlarged to a size that the FFT likes, and wraps around unseen.
    """

    frame: tuple[int, int]  # (H, W) of the image
    kernel: tuple[int, int]

    @property
    def margins(self) -> tuple[int, int, int, int]:  # left, right, top, bottom, as `pad` has them
        from scipy.fft import next_fast_len  # not with `import bilevel`

        sides: list[int] = []
        for n, k in zip(reversed(self.frame), reversed(self.kernel), strict=True):
            before = k - 1 - k // 2  # the kernel's centre is k // 2
            wide: int = next_fast_len(n + k - 1, real=True)  # type: ignore[assignment]
            sides += [before, wide - n - before]
        return tuple(sides)  # type: ignore[return-value]

    def widen(self, image: Tensor) -> Tensor:
        """The image in the middle, its edge repeated to fill the scene."""
        return pad(image, self.margins, mode="replicate")

    def mask(self, like: Tensor) -> Tensor:  # 1 inside the frame, of the rank of `like`
        ones = [1] * (like.ndim - 2)
        return pad(like.new_ones(*ones, *self.frame), self.margins)

    def crop(self, scene: Tensor) -> Tensor:
        left, _, top, _ = self.margins
        return scene[..., top : top + self.frame[0], left : left + self.frame[1]]


def deblur(layer: TVLayer, blurred: Tensor, kernel: Tensor, weight: Tensor) -> Tensor:
    """argmin over x of 1/2 |k * x - blurred|^2 in the frame + weight TV(x), low <= x <= high."""
    kernel = _checked(kernel, layer.images(blurred), type(layer).__name__)
    scene = Scene(tuple(blurred.shape[-2:]), tuple(kernel.shape[-2:]))  # type: ignore[arg-type]
    wide, mask = scene.widen(blurred), BALANCE * scene.mask(blurred)
    camera = Mask(mask) @ Blur(kernel, Periodic())
    # composed: the solver takes its prox, and needs a quarter of the steps that its gradient would
    misfit = Composition(LeastSquares(mask * wide, weight=BALANCE**-2), camera)
    values, each = blurred.detach().flatten(1), (-1, *[1] * (blurred.ndim - 1))
    low, high = values.amin(1).clamp(max=0.0), values.amax(1).clamp(min=1.0)
    bounds = Box(low.reshape(each), high.reshape(each))  # no cut, and with it there is a gap
    x = layer.solve(misfit + bounds, weight, x0=wide.detach(), default=SOLVER)
    return scene.crop(x)


def _checked(kernel: Tensor, images: Tensor, layer: str) -> Tensor:
    shape = tuple(kernel.shape) if isinstance(kernel, Tensor) else type(kernel).__name__
    if not isinstance(kernel, Tensor) or kernel.ndim not in (2, 3):
        raise ValueError(
            f"{layer} needs a kernel (h, w), or (B, h, w) of one a sample, got {shape}."
        )
    if kernel.ndim == 3 and len(kernel) != len(images):
        raise ValueError(
            f"{layer} got {len(kernel)} kernels for {len(images)} images. Give one for each, or "
            "one (h, w) for all."
        )
    if any(k > n for k, n in zip(kernel.shape[-2:], images.shape[-2:], strict=True)):
        raise ValueError(
            f"{layer} got a kernel {tuple(kernel.shape[-2:])}, larger than the image "
            f"{tuple(images.shape[-2:])}. Cut off its zeros at the border, or are they exchanged?"
        )
    return kernel.to(images)


class TVDeblur(OneWeight):
    """argmin over x of 1/2 |k * x - blurred|^2 + weight TV(x), with a learnable weight =
    exp(log_weight).

    k is known, k * x a convolution with its centre at size // 2. What the kernel reaches beyond the
    frame is unknown, too, so edges do not ring; x stays within [0, 1], or the range of the values
    of a blurred image that leave it. Shapes: (B, C, H, W), kernel (h, w) or (B, h, w) -> (B, C, H,
    W). The weight is a number, or (C, 1, 1) of one a channel.

    [1] Almeida, Figueiredo. Deconvolving images with unknown boundaries using the alternating
    direction method of multipliers. TIP, 2013 (the frame; the solver is PrimalDual).
    """

    asks: ClassVar = ("kernel",)

    def forward(self, blurred: Tensor, kernel: Tensor) -> Tensor:
        return deblur(self, blurred, kernel, self.weight_for(self.images(blurred)))


class TVDeblurer(WeightOfNoise):
    """TV deblurring, as TVDeblur, for any noise level: weight(sigma) = exp(offset + slope log
    sigma), both learnable.

    sigma is the noise's standard deviation in the image's units, one a sample. Much less weight is
    needed than for denoising, as the data says less about fine detail.
    """

    asks: ClassVar = ("kernel", "sigma")

    def forward(self, blurred: Tensor, kernel: Tensor, sigma: Tensor) -> Tensor:
        return deblur(self, blurred, kernel, self.weight_for(self.images(blurred), sigma))
