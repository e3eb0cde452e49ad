"""report.html: complete, self-contained, readable."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from bilevel.reports import figures, page, restoration
from bilevel.tasks import evaluation, grid, images, runs, sweep
from bilevel.tasks.task import weight_at
from photos import cartoon, write_photos


class Page(HTMLParser):
    """The elements of a page, and whether they nest."""

    VOID = ("meta", "img", "br", "link", "input")

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

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

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
    job = runs.Job(str(folder / "photos <b>"), noise="5:50", crop=16, crops=3)
    runs.learn(job, folder / "run", steps=2, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(run):
    model, _ = runs.load(run)
    pictures = [
        images.Image(cartoon(32, c), images.Kind(np.dtype(np.uint8))) for c in (False, True)
    ]
    job = runs.Job.of_run(run)
    grids = [grid.grid_search(job.task, job.samples(), 25.0)]
    result = evaluation.evaluate(
        {evaluation.LEARNED[job.model]: model}, pictures, [25.0], job.task, grids=grids
    )
    evaluation.save(result, run, force=True)
    return Page(restoration.write(run).read_text(encoding="utf-8"))


def test_page_before_an_evaluation(run):
    page = Page(restoration.write(run).read_text(encoding="utf-8"))
    assert "Not evaluated yet" in page.text and "Learning" in page.text


def test_page_needs_nothing_else(evaluated):
    for tag, attributes in evaluated.elements:
        assert tag not in ("link", "iframe", "object")
        assert tag != "script" or not attributes  # its few lines are in the page
        for name in ("src", "href", "srcset", "data"):
            assert attributes.get(name, "data:").startswith("data:")


def test_style_loads_nothing(evaluated):
    style = (Path(page.__file__).parent / "page.html.template").read_text()
    assert "@import" not in style and "url(" not in style


def test_every_picture_has_a_text_and_can_be_decoded(evaluated):
    pictures = evaluated.all("img")
    assert len(pictures) == 2 * 7 + 4  # clean and three methods with errors; four curves
    for attributes in pictures:
        assert len(attributes["alt"]) > 5
        kind, content = re.match(r"data:(.*?);base64,(.*)", attributes["src"]).groups()
        content = base64.b64decode(content)
        if kind == "image/webp":
            assert Pillow.open(io.BytesIO(content)).size == (32, 32)
        else:
            assert kind == "image/svg+xml" and b"<svg" in content


def test_the_page_forbids_the_network(evaluated):
    """Should a later section forget: the browser itself then refuses to load anything."""
    rules = [m for m in evaluated.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert len(rules) == 1 and "default-src 'none'; img-src data:" in rules[0]["content"]


# -------------------------------------------------------------------------------------- slider


@pytest.fixture(scope="module")
def moved(run):
    """The sweep of a run, and the page with its slider."""
    picture = images.Image(cartoon(24), images.Kind(np.dtype(np.uint8)))
    model, task = runs.load(run)[0], runs.Job.of_run(run).task
    result = sweep.sweep(task, model, picture, 25.0)
    sweep.save(result, run)
    return result, restoration.write(run).read_text(encoding="utf-8")


def test_sweep_goes_through_the_learned_weight(run, moved):
    result, _ = moved
    model, _ = runs.load(run)
    learned = weight_at(model, 25.0)
    weights = [frame.weight for frame in result.frames]
    assert weights == sorted(weights) and learned in weights
    number = weights.index(learned)
    noisy = result.pictures[sweep.SEEN][None]
    alone = runs.Job.of_run(run).task.apply(model, noisy, 25.0)[0]
    # both to the gap of 1e-4: |x - x*|^2 / 2 is at most 1e-4 of an energy of about 1.5
    assert np.abs(alone - result.pictures[str(number)]).max() < 0.02
    flat = result.pictures[str(len(weights) - 1)]
    assert flat.std() < result.pictures["0"].std()  # more weight, fewer details


def test_sweep_is_written_and_read_back(run, moved):
    result, back = moved[0], sweep.read(run)
    assert back is not None and back.frames == result.frames
    for name, pixels in result.pictures.items():
        assert np.abs(back.pictures[name] - pixels.clip(0, 1)).max() < 0.6 / 255  # eight bits


def test_without_javascript_the_learned_weight_is_shown(moved):
    result, text = moved
    page = Page(text)
    frames = [image for image in page.all("img") if "data-value" in image]
    assert len(frames) == len(result.frames)
    (shown,) = [image for image in frames if "hidden" not in image]
    assert "learned" in shown["alt"] and shown["data-text"] in page.text  # the caption
    (control,) = [a for a in page.all("p") if a.get("class") == "control"]
    assert "hidden" in control  # shown by the script that makes it work


def test_slider_has_a_label_and_every_frame_its_numbers(moved):
    result, text = moved
    page = Page(text)
    (control,) = page.all("input")
    assert control["type"] == "range" and {"for": control["id"]} in page.all("label")
    assert int(control["max"]) == len(result.frames) - 1
    texts = [image["data-text"] for image in page.all("img") if "data-text" in image]
    for told, frame in zip(texts, result.frames, strict=True):
        assert f"{frame.weight:.3g}" in told and f"{frame.psnr:.2f} dB" in told


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("number", [0, 7])
def test_slider_in_a_browser(run, moved, number, tmp_path):
    """The address names a weight, which the script then shows; the pictures change by it alone."""
    frame = moved[0].frames[number]
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-sync", f"--user-data-dir={tmp_path}"),
        *("--virtual-time-budget=2000", "--dump-dom"),
        f"{(run / 'report.html').resolve().as_uri()}#weight={frame.weight:.4g}",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    shown = re.findall(r'data-text="([^"]*)">', dom)  # without `hidden`
    hidden = re.findall(r'data-text="([^"]*)" hidden', dom)
    assert len(shown) == 1 and len(hidden) == len(moved[0].frames) - 1
    assert f"{frame.psnr:.2f} dB" in shown[0]
    assert f'aria-valuetext="{shown[0]}"' in dom and 'class="control">' in dom


# ------------------------------------------------------------------------------------- content


def test_numbers_are_those_of_the_run(run, evaluated):
    table = evaluation.means(evaluation.read_rows(run))
    for values in table.values():
        psnr, ssim = values[25.0]
        assert f"{psnr:.2f}" in evaluated.text and f"{ssim:.3f}" in evaluated.text
    certificate = json.loads((run / "certificate.json").read_text())
    for name, value in certificate.items():
        assert name.replace("_", " ") in evaluated.text
        assert page._number(value) in evaluated.text
    model, _ = runs.load(run)
    assert "offset = " in evaluated.text and "slope = " in evaluated.text


def test_every_number_of_the_certificate_is_explained():
    from dataclasses import fields

    from bilevel import Certificate

    missing = {field.name for field in fields(Certificate)} - set(page.CERTIFICATE)
    assert not missing, "say in page.CERTIFICATE what they mean"


def test_names_are_escaped(evaluated):
    assert "photos <b>" in evaluated.text and "b" not in {tag for tag, _ in evaluated.elements}


def test_phone_and_language(evaluated):
    assert {"lang": "en"} in evaluated.all("html")
    assert any("width=device-width" in m.get("content", "") for m in evaluated.all("meta"))


def test_report_of_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.toml"):
        restoration.write(tmp_path)


def decoded(uri):
    picture = Pillow.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.asarray(picture.convert("RGB"), dtype=float)


def test_error_map_is_brighter_where_the_error_is_larger():
    clean = np.zeros((2, 3))
    errors = decoded(figures.error_map(clean + [[0, 0.1, 0.2]], clean)).sum(2)
    assert errors[0, 0] < errors[0, 1] < errors[0, 2] and errors[0, 0] < 20
    colour = np.zeros((2, 3, 3))
    assert decoded(figures.error_map(colour + 0.25, colour)).sum(2).min() > 600
