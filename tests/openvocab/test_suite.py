"""test_openvocab.py on tiny datasets: as a user runs it, killed, with each kind of model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import test_openvocab as script
from ade_tree import make_tree
from encoding_ext.evaluator import MultiScaleEvaluator
from encoding_ext.mask_scores import cp_iou
from lseg_utils.errors import InputError
from modules.checkpoints import save_file, to_official
from openvocab import suite
from openvocab.benchmarks import Benchmark, task_of
from openvocab.clip_dense import ClipDense
from openvocab.look import Look
from openvocab.models import (
    LSegSegmenter,
    PluggedSegmenter,
    SavedPredictions,
    class_probabilities,
    picture_names,
    text_matrix,
)
from openvocab.wording import Wording, word_similarity
from scripts import run_light
from tiny import tiny_clip, tiny_net

PICTURES = 3
SINGLE = Look(64, 64, (1.0,), False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "datasets", val=PICTURES)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file({"state_dict": to_official(tiny_net("tiny_vit", None).state_dict())}, tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


def openvocab(root: Path, *more: object, out: str = "out", datasets: str = "A-150") -> dict:
    """Test in this process; results.json."""
    folder = root.parent / out
    places = ("--data_path", root, "--output_dir", folder, "--workers", 0, "--device", "cpu")
    options = ("--datasets", datasets, "--protocol", "short-side", "--short_side", 64, *places, *more)
    script.main([str(option) for option in options])
    return json.loads((folder / "results.json").read_text())


def refused(*options: object) -> str:
    with pytest.raises(InputError) as caught:
        script.main([str(option) for option in options])
    return str(caught.value)


def test_one_table_with_everything_that_a_result_depends_on_and_what_is_missing(root, weights, capsys):
    found = openvocab(root, "--weights", weights, datasets="A-150,PAS-20,miniature")
    (result,) = found["results"]
    assert result["pictures"] == PICTURES and len(result["labels"]) == 150
    assert result["templates"] == "none" and result["synonyms"] == "first" and "64" in result["protocol"]
    assert result["fingerprint"].startswith("sha256 ") and len(result["labels_sha256"]) == 64
    assert set(found["versions"]) >= {"python", "torch", "numpy"} and "git" in found
    assert result["quoted_score"] in result["scores"] and "boundary_iou" in result["scores"]
    printed = capsys.readouterr().out
    assert len(found["missing"]) == 2 and printed.count("missing, left out: PAS-20") == 2  # first and at the end
    assert printed.startswith("missing") and "A-150" in (root.parent / "out" / "table.txt").read_text()
    page = (root.parent / "out" / "report.html").read_text()
    assert "A-150/report.html" in page and (root.parent / "out" / "A-150" / "report.html").is_file()


def write_voc(root: Path) -> None:
    """Two pictures in Pascal VOC's layout: background, a cat (8) and an ignored border (255)."""
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        noise = np.random.RandomState(number).randint(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "JPEGImages" / f"p{number}.jpg")
        mask = np.zeros((30, 40), np.uint8)
        mask[:, 20:], mask[:, 19] = 8, 255
        picture = Image.fromarray(mask)
        picture.putpalette([value for value in range(256) for _ in range(3)])
        picture.save(folder / "SegmentationClass" / f"p{number}.png")
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("p0\np1\n")


def test_several_benchmarks_and_a_file_of_the_users_in_one_command(root, weights, tmp_path):
    write_voc(root)
    mine = tmp_path / "mine.yaml"
    parts = "images: datasets/ADEChallengeData2016/images, masks: datasets/ADEChallengeData2016/annotations"
    parts = parts.replace("images,", "images/validation,").replace("annotations", "annotations/validation")
    labels = ", ".join(f"thing {number}" for number in range(10))
    mine.write_text(f"name: mine\nsplits:\n  val: {{{parts}}}\nlabels: [{labels}]\nmask: {{first: 1, ignore: [0]}}\n")
    found = openvocab(root, "--weights", weights, datasets=f"A-150,PAS-20,PAS-20b,PAS-21,{mine}")
    results = {result["benchmark"]: result for result in found["results"]}
    assert list(results) == ["A-150", "PAS-20", "PAS-20b", "PAS-21", "mine"] and not found["missing"]
    assert [len(result["per_class_iou"]) for result in results.values()] == [150, 20, 21, 21, 10]
    assert results["PAS-20b"]["labels"][20].startswith("bag | bed") and results["PAS-21"]["labels"][20] == "background"
    assert results["PAS-20"]["background"].startswith("ignored")
    folder = root.parent / "out"
    (line,) = [json.loads(line) for line in (folder / "PAS-20" / "pictures_0.jsonl").read_text().splitlines()[1:2]]
    assert sum(pixels for _, _, pixels in line["pairs"]) == 30 * 20  # the cat alone counts
    (line,) = [json.loads(line) for line in (folder / "PAS-21" / "pictures_0.jsonl").read_text().splitlines()[1:2]]
    assert sum(pixels for _, _, pixels in line["pairs"]) == 30 * 39  # all but the border


def test_saved_masks_scored_through_the_folder_give_the_digits_of_the_direct_run(root, weights):
    direct = openvocab(root, "--weights", weights, "--save_masks")["results"][0]
    again = openvocab(root, "--predictions", root.parent / "out" / "masks", out="again")["results"][0]
    assert again["scores"] == direct["scores"] and again["per_class_iou"] == direct["per_class_iou"]
    assert again["labels_sha256"] == direct["labels_sha256"]


def test_saved_logits_and_what_is_wrong_with_saved_files(root):
    folder = root.parent / "saved"
    folder.mkdir()
    options = ("--datasets", "A-150", "--data_path", root, "--output_dir", root.parent / "out", "--workers", 0)
    options += ("--predictions", folder, "--device", "cpu")
    assert "lacks the predictions of 3 of 3" in refused(*options)
    for number in range(PICTURES):
        logits = np.zeros((150, 15, 20), np.float32)
        logits[7] = 1  # the label of the right half, everywhere
        np.save(folder / f"a{number}.npy", logits)
    script.main([str(option) for option in options])
    result = json.loads((root.parent / "out" / "results.json").read_text())["results"][0]
    assert result["scores"]["pacc"] == 100 and result["scores"]["miou_all"] == pytest.approx(100 / 150)
    for values, fact in (
        (np.zeros((5, 5), np.uint8), "(5, 5)"),
        (np.full((30, 40), 200, np.uint8), "class 200"),
    ):
        Image.fromarray(values).save(folder / "a1.png")
        message = refused(*options, "--output_dir", root.parent / fact)
        assert "a1.png" in message and fact in message


def test_cp_iou_of_the_suite_is_that_of_the_probabilities(root, weights):
    direct = openvocab(root, "--weights", weights, "--cp_iou")["results"][0]
    model = LSegSegmenter(tiny_net("tiny_vit", None), "cpu", "32")
    dataset = data.get_dataset("ade20k", root, "val", "testval", suite.pixels_of)
    text, owner = text_matrix(model, [(label,) for label in dataset.labels], Wording())
    rows = []
    for image, truth in (dataset[i] for i in range(PICTURES)):
        seen = model.see(image, Look(520, 480, (1.0,), False, short_side=64))
        probabilities = class_probabilities(model.probabilities(seen, text), owner, 150)
        torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(image.shape[1:]))
        assert torch.equal(probabilities.argmax(dim=0), owner[model.best(seen, text)])
        rows.append(cp_iou(probabilities, truth))
    expected = 100 * np.mean(rows, axis=0)
    np.testing.assert_allclose(direct["cp_iou_by_threshold"], expected, rtol=1e-5)
    assert direct["scores"]["cp_iou"] == pytest.approx(expected[:, 0].mean())
    assert "CP-IoU" in (root.parent / "out" / "table.txt").read_text()
    with pytest.raises(InputError, match="cp_iou"):  # earlier counts have it, these would not
        openvocab(root, "--weights", weights)


def test_probabilities_of_any_model_and_of_saved_files(root):
    picture = torch.randint(0, 3, (3, 64, 96), dtype=torch.uint8)
    model, look = PluggedSegmenter(Letters()), Look(64, 32, (0.5, 1.0), True)
    text, owner = text_matrix(model, [("car", "automobile"), ("tree",)], Wording())
    whole = Look(1, 32, (1.0,), False, short_side=64)
    cosines = torch.einsum("kc,chw->khw", text, Letters().embed(picture / 255))
    found = model.probabilities(model.see(picture, whole), text)
    torch.testing.assert_close(found, (100 * cosines).softmax(dim=0), rtol=1e-3, atol=1e-5)
    seen = model.see(picture, look)
    assert torch.equal(model.probabilities(seen, text).argmax(dim=0), model.best(seen, text))
    both = class_probabilities(found, owner, 2)
    assert both.shape == (2, 64, 96) and torch.allclose(both[0], found[0] + found[1])
    folder = root.parent / "saved"
    folder.mkdir()
    np.save(folder / "a.npy", np.array([[[0.0]], [[np.log(3)]]], np.float32))
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(folder / "b.png")
    saved = SavedPredictions(folder, "x")
    assert saved.probabilities("a", (1, 1), 2).flatten().tolist() == pytest.approx([0.25, 0.75])
    assert saved.probabilities("b", (1, 2), 2).tolist() == [[[1, 0]], [[0, 1]]]


def test_a_benchmark_on_a_copy_and_a_backbone_that_the_file_cannot_tell(root, weights, tmp_path):
    copy = root / "ADEChallengeData2016" / "own.yaml"
    labels = "labels: {file: ade20k_objectInfo150.txt}\nmask: {first: 1, ignore: [0]}\n"
    copy.write_text(
        f"name: own\nsplits: {{val: {{images: images/validation, masks: annotations/validation}}}}\n{labels}"
    )
    result = openvocab(root, "--weights", weights, datasets=f"A-150={copy}")["results"][0]
    assert result["benchmark"] == "A-150" and result["dataset"] == "own"
    assert "'A-151=" in refused("--datasets", f"A-151={copy}", "--weights", weights, "--data_path", root)
    message = refused("--datasets", "A-150", "--model", f"{copy}:x", "--backbone", "tiny_vit", "--data_path", root)
    assert "leave it out with --model" in message
    with pytest.raises(InputError, match="is a tiny_vit"):
        openvocab(root, "--weights", weights, "--backbone", "tiny_resnet", out="other")


@pytest.mark.parametrize("count", [1, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_suite_with_one_label_and_with_ten_thousand(count, root, weights):
    folder = root / "ADEChallengeData2016"
    for number in range(PICTURES):
        mask = np.zeros((30, 40), np.uint16)
        mask[:, 20:] = count - 1
        Image.fromarray(mask).save(folder / "annotations" / "validation" / f"a{number}.png")
    (folder / "names.txt").write_text("\n".join(f"label {number}" for number in range(count)))
    own = folder / "own.yaml"
    files = "{images: images/validation, masks: annotations/validation}"
    own.write_text(f"name: own\nsplits: {{val: {files}}}\nlabels: {{file: names.txt}}\nmask: {{ignore: [65535]}}\n")
    result = openvocab(root, "--weights", weights, datasets=str(own))["results"][0]
    scores = result["scores"]
    assert len(result["per_class_iou"]) == len(result["labels"]) == count
    assert scores["miou_all"] == pytest.approx(sum(result["per_class_iou"]) / count)
    assert (scores["pacc"] == 100) == (count == 1) and scores["open_miou_present"] >= scores["miou_present"]


def test_a_killed_run_resumes_and_counts_every_picture_once(root, weights, monkeypatch):
    whole = openvocab(root, "--weights", weights, out="whole")["results"][0]
    counted, seen = suite.counted, []

    def killed(*arguments: object) -> dict:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(suite, "counted", killed)
    with pytest.raises(KeyboardInterrupt):
        openvocab(root, "--weights", weights)
    resumed = openvocab(root, "--weights", weights)["results"][0]
    assert len(seen) == 2 + PICTURES - 1
    assert resumed["scores"] == whole["scores"] and resumed["pictures"] == PICTURES
    with pytest.raises(InputError) as caught:  # other settings do not mix with these counts
        openvocab(root, "--weights", weights, "--templates", "vild")
    assert "templates" in str(caught.value) and "--output_dir" in str(caught.value)


def test_bad_input_is_refused_at_once_and_together(root, weights, tmp_path):
    message = refused("--datasets", "A-151,ade20k", "--weights", weights, "--synonyms", "max", "--data_path", root)
    assert "A-151" in message and "did you mean A-150" in message
    message = refused("--datasets", "A-150", "--data_path", root, "--templates", "imagnet", "--workers", -1)
    assert all(fact in message for fact in ("imagnet", "--workers is -1", "--predictions"))
    assert "none of the datasets" in refused("--datasets", "all", "--weights", weights, "--data_path", tmp_path / "no")
    templates = tmp_path / "templates.txt"
    templates.write_text("a photo of {}\na photo\n")
    assert "a photo" in refused("--datasets", "ade20k", "--weights", weights, "--templates", templates)
    assert "A-150" in run_light("test_openvocab.py", "--help", cwd=tmp_path)
    run_light("test_openvocab.py", "--datasets", "A-150", "--weights", "no.ckpt", cwd=tmp_path, code=2)


# -------------------------------------------------------------------------------------------------- labels


class Letters:
    """A text tower whose vectors are counts of letters; a picture's vector is the word of its first pixel's red."""

    words = ("car", "automobile", "tree")

    def encode_labels(self, labels, templates):
        texts = ["".join(template.replace("{}", label) for template in templates) for label in labels]
        counts = [[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(counts).float(), dim=-1)

    def embed(self, image):
        numbers = (image[0] * 255).round().long().clamp(max=len(self.words) - 1)
        return self.encode_labels(self.words, ["{}"])[numbers].permute(2, 0, 1)


def test_synonyms_are_aggregated_as_asked():
    model, labels = PluggedSegmenter(Letters()), [("car, automobile",), ("tree",)]
    for synonyms, texts in (("first", 2), ("mean", 2), ("whole", 2), ("max", 3)):
        vectors, owner = text_matrix(model, labels, Wording(synonyms=synonyms))
        assert len(vectors) == texts and owner.tolist() == [0] * (texts - 1) + [1]
    car, automobile = model.encode_labels(["car", "automobile"], ["{}"])
    mean, _ = text_matrix(model, labels, Wording(synonyms="mean"))
    torch.testing.assert_close(mean[0], torch.nn.functional.normalize(car + automobile, dim=0))
    vectors, owner = text_matrix(model, labels, Wording(synonyms="max"))
    picture = torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8).expand(3, 2, 2)
    found = owner[model.best(model.see(picture, Look(2, 32, (1.0,), False)), vectors)]
    assert found.tolist() == [[0, 0], [1, 1]]  # both names are the car


def test_the_background_is_what_the_benchmark_says():
    labels = ["background", "cat", "dog"]
    ignored = task_of(Benchmark("a", "x", background="ignored"), labels)
    assert ignored.classes == ("cat", "dog") and ignored.class_of == (-1, 0, 1)
    rest = task_of(Benchmark("b", "x", background="rest", background_labels=("wall", "sky")), labels)
    assert rest.classes == ("cat", "dog", "background") and rest.class_of == (2, 0, 1)
    assert rest.labels[2] == ("wall", "sky") and "wall" in rest.background and rest.sha256 != ignored.sha256
    with pytest.raises(InputError, match="background"):
        task_of(Benchmark("c", "x", background="class"), ["cat"])


def test_similarity_by_words():
    alike = word_similarity(["table, desk", "pool table", "sky", "sky"]).tolist()
    assert alike[0][1] == pytest.approx(2 / 3) and alike[0][2] == 0 and alike[2] == [0, 0, 1, 1]


# -------------------------------------------------------------------------------------------------- models


def test_lseg_counts_what_the_published_test_counts(one_thread):
    net, look = tiny_net("tiny_vit"), Look(80, 64, (0.5, 1.0), True)
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    model = LSegSegmenter(net, "cpu", "32")
    text, _ = text_matrix(model, [(label,) for label in net.labels], Wording())
    evaluator = MultiScaleEvaluator(lambda crops: net.half_logits(crops, text), 3, 80, 64, (0.5, 1.0), True)
    scores = evaluator((image[None] / 255 - 0.5) / 0.5)[0]
    found = model.best(model.see(image, look), text)
    clear = scores.topk(2, dim=0).values.diff(dim=0).abs()[0] > 1e-3
    assert clear.float().mean() > 0.9 and torch.equal(found[clear], scores.argmax(0)[clear])


def test_a_model_with_logits_only_is_seen_through_the_same_windows():
    class Logits:
        encode_labels = Letters().encode_labels

        def logits(self, image, text):
            return torch.einsum("kc,chw->khw", text, Letters().embed(image))

    picture = torch.randint(0, 3, (3, 40, 70), dtype=torch.uint8)
    for look in (SINGLE, Look(64, 32, (0.5, 1.0), True), Look(1, 32, (1.0,), False, short_side=64)):
        found = []
        for model in (PluggedSegmenter(Letters()), PluggedSegmenter(Logits())):
            text, _ = text_matrix(model, [("car",), ("tree",)], Wording())
            found.append(model.best(model.see(picture, look), text))
        assert found[0].shape == (40, 70) and torch.equal(*found)
    with pytest.raises(InputError, match="encode_labels"):
        PluggedSegmenter(object())


def test_a_model_of_your_own_from_a_file(root, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "class Mine:\n"
        "    def encode_labels(self, labels, templates):\n"
        "        return torch.eye(150)[: len(labels)]\n"
        "    def embed(self, image):\n"
        "        return torch.eye(150)[7][:, None, None].expand(150, 4, 4)\n"
        "def make():\n"
        "    return Mine()\n"
    )
    result = openvocab(root, "--model", f"{file}:make")["results"][0]
    assert result["scores"]["pacc"] == 100 and result["fingerprint"].startswith("sha256")
    assert "does not define other" in refused("--datasets", "A-150", "--data_path", root, "--model", f"{file}:other")


def test_dense_clip_is_the_value_of_each_token_alone(tmp_path):
    clip = tiny_clip()
    save_file(clip.state_dict(), tmp_path / "clip.pt")
    model = ClipDense(tmp_path / "clip.pt", "cpu")
    maps = model.embed(torch.rand(3, 50, 70))
    assert maps.shape == (64, 3, 4)  # patches of 16
    # With one token the softmax has nothing to mix: the last layer is then CLIP's own. Take the class token away.
    visual, image = clip.visual, torch.rand(3, 16, 16)
    pixels = (image - model.mean) / model.std
    token = visual.conv1(pixels[None]).flatten(2).permute(0, 2, 1)  # (1, 1, E)
    place = visual.positional_embedding[1:].T.reshape(1, -1, 2, 2)
    place = torch.nn.functional.interpolate(place, (1, 1), mode="bicubic", align_corners=False).flatten(2).mT
    with torch.inference_mode():
        x = visual.transformer(visual.ln_pre(token + place).permute(1, 0, 2))[0]
        expected = (visual.ln_post(x) @ visual.proj)[0]
        torch.testing.assert_close(model.embed(image)[:, 0, 0], expected, rtol=1e-4, atol=1e-5)
        text = model.encode_labels(["dog", "cat"], ["a photo of a {}."])
        from clip import tokenize

        own = clip.encode_text(tokenize(["a photo of a dog.", "a photo of a cat."], context_length=16))
        torch.testing.assert_close(text, torch.nn.functional.normalize(own, dim=-1), rtol=1e-4, atol=1e-5)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt is not a CLIP file"):
        ClipDense(tmp_path / "other.pt", "cpu")


def test_names_of_pictures_are_unique_below_their_common_folder():
    assert picture_names(["/d/val/a.jpg", "/d/val/b.png"]) == ["a", "b"]
    assert picture_names(["/d/val/x/a.jpg", "/d/val/y/a.jpg"]) == ["x/a", "y/a"]
