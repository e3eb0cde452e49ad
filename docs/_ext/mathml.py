"""Formulas as MathML: no script, no font, no network; every current browser shows it."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)

THIN = '<mspace width="0.1667em"/>'
WORD = r'<mi(?: mathvariant="normal")?>[a-zA-Z]{3,}</mi>'  # clip, log, prox
SPACING = [  # what docutils leaves to the browser's defaults, set as TeX does
    (r"\s*\n\s*", ""),
    (r"<mo[^>]*>([|/])</mo>", r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>'),
    (r"<mo[^>]*>([⟨⟩])</mo>", r'<mo stretchy="false">\1</mo>'),
    (r"<mo>(min|max)</mo>", r'<mo lspace=".17em" rspace=".17em" movablelimits="true">\1</mo>'),
    (rf"(</m[in]>|</msu[bp]>|</msubsup>)(?={WORD}|<msub>{WORD})", rf"\1{THIN}"),
    (r"<mo>&ApplyFunction;</mo>(?!<mo)", THIN),
    (r"<mo>&ApplyFunction;</mo>", ""),
]  # fmt: skip


def mathml(node: nodes.Element, block: bool) -> str:
    try:
        markup = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logger.warning("%s In: %s", error, node.astext(), location=node)
        return ""
    for pattern, replacement in SPACING:
        markup = re.sub(pattern, replacement, markup)
    return markup


def inline(self, node: nodes.math) -> None:
    self.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def block(self, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
