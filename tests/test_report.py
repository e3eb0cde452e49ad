"""report.html: complete, self-contained, readable."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as Pillow

from bilevel import report, report_figures
from bilevel.tasks import denoise, evaluation, images
from photos import cartoon, write_photos


class Page(HTMLParser):
    """The elements of a page, and whether they nest."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_photos(folder / "photos <b>")  # a name that HTML must not read
    job = denoise.Job(str(folder / "photos <b>"), noise="5:50", crop=16, crops=3)
    denoise.learn(job, folder / "run", steps=2, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(run):
    model, _ = denoise.load(run)
    pictures = [
        images.Image(cartoon(32, c), images.Kind(np.dtype(np.uint8))) for c in (False, True)
    ]
    grid = evaluation.grid_search(denoise.Job.of_run(run).samples(), 25.0)
    result = evaluation.evaluate({evaluation.LEARNED: model}, pictures, [25.0], grids=[grid])
    evaluation.save(result, run, force=True)
    return Page(report.write(run).read_text(encoding="utf-8"))


def test_page_before_an_evaluation(run):
    page = Page(report.write(run).read_text(encoding="utf-8"))
    assert "Not evaluated yet" in page.text and "Learning" in page.text


def test_page_needs_nothing_else(evaluated):
    for tag, attributes in evaluated.elements:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "srcset", "data"):
            assert attributes.get(name, "data:").startswith("data:")


def test_style_loads_nothing(evaluated):
    style = (report.Path(report.__file__).parent / "report.html.template").read_text()
    assert "@import" not in style and "url(" not in style


def test_every_picture_has_a_text_and_can_be_decoded(evaluated):
    pictures = evaluated.all("img")
    assert len(pictures) == 2 * 7 + 4  # clean and three methods with errors; four curves
    for attributes in pictures:
        assert len(attributes["alt"]) > 5
        kind, content = re.match(r"data:(.*?);base64,(.*)", attributes["src"]).groups()
        content = base64.b64decode(content)
        if kind == "image/png":
            assert Pillow.open(io.BytesIO(content)).size == (32, 32)
        else:
            assert kind == "image/svg+xml" and b"<svg" in content


def test_numbers_are_those_of_the_run(run, evaluated):
    table = evaluation.means(evaluation.read_rows(run))
    for values in table.values():
        psnr, ssim = values[25.0]
        assert f"{psnr:.2f}" in evaluated.text and f"{ssim:.3f}" in evaluated.text
    certificate = json.loads((run / "certificate.json").read_text())
    for name, value in certificate.items():
        assert name.replace("_", " ") in evaluated.text
        assert report._number(value) in evaluated.text
    model, _ = denoise.load(run)
    assert "offset = " in evaluated.text and "slope = " in evaluated.text


def test_every_number_of_the_certificate_is_explained():
    from dataclasses import fields

    from bilevel import Certificate

    missing = {field.name for field in fields(Certificate)} - set(report.CERTIFICATE)
    assert not missing, "say in report.CERTIFICATE what they mean"


def test_names_are_escaped(evaluated):
    assert "photos <b>" in evaluated.text and "b" not in {tag for tag, _ in evaluated.elements}


def test_phone_and_language(evaluated):
    assert {"lang": "en"} in evaluated.all("html")
    assert any("width=device-width" in m.get("content", "") for m in evaluated.all("meta"))


def test_report_of_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.toml"):
        report.write(tmp_path)


def decoded(uri):
    picture = Pillow.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.asarray(picture.convert("RGB"), dtype=float)


def test_error_map_is_brighter_where_the_error_is_larger():
    clean = np.zeros((2, 3))
    errors = decoded(report_figures.error_map(clean + [[0, 0.1, 0.2]], clean)).sum(2)
    assert errors[0, 0] < errors[0, 1] < errors[0, 2] and errors[0, 0] < 20
    colour = np.zeros((2, 3, 3))
    assert decoded(report_figures.error_map(colour + 0.25, colour)).sum(2).min() > 600
