"""Where label sets agree and contradict each other."""

from __future__ import annotations

import json

import pytest

from data.__main__ import main
from data.conflicts import cleaned, compare_sets
from data.relations import KNOWN, Relations
from lseg_utils.errors import InputError
from lseg_utils.label_sets import LabelSet

MSEG = ["ade20k", "coco_panoptic133", "mapillary_vistas65", "idd39", "sunrgbd37", "bdd100k", "cityscapes"]


def test_the_seven_sets_of_mseg_have_the_published_numbers(tmp_path, capsys):
    (tmp_path / "mseg.yaml").write_text("sunrgbd37: {rename: {refrigerator: refridgerator}}\n")  # as MSeg spells it
    options = ["--label_src", "corrected", "--label_table", str(tmp_path / "mseg.yaml")]
    main(["conflicts", *MSEG, *options, "--json", str(tmp_path / "found.json")])
    assert "462 labels, 315 distinct, 76 shared" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["counts"].values()) == [150, 133, 65, 39, 37, 19, 19]
    assert found["same"]["person"] == MSEG
    groups = [set(group) for group in found["synonyms"]]
    assert {"sofa", "couch"} in groups and {"tree", "tree-merged"} in groups
    assert {"refrigerator", "refridgerator"} in groups
    assert "rider" in found["parts"]["person"] and "coffee table" in found["parts"]["table"]
    assert "car" not in found["parts"], "no set has a part of it"
    assert {"other vehicle", "fallback background", "out of roi"} <= found["catch_all"].keys()
    assert "bridge" not in found["catch_all"]


def test_small_sets_by_hand():
    sets = [
        LabelSet("a", ("Table", "person", "void", "stairs")),
        LabelSet("b", ("table", "pool table", "rider", "stair")),
    ]
    found = compare_sets(sets, Relations(contains={"person": ["rider"]}, catch_all=["void"]))
    assert (found["total"], found["distinct"], found["shared"]) == (8, 7, 1)
    assert found["same"] == {"table": ["a", "b"]}
    assert found["synonyms"] == [{"stair": ["b"], "stairs": ["a"]}]
    assert found["parts"] == {"person": {"rider": ["b"]}, "table": {"pool table": ["b"]}}
    assert found["catch_all"] == {"void": ["a"]}


def test_a_table_settles_conflicts(tmp_path, capsys):
    (tmp_path / "table.yaml").write_text("bdd100k: {rename: {car: automobile}, drop: [rider]}\n")
    main(["conflicts", "bdd100k", "cityscapes", "--label_table", str(tmp_path / "table.yaml")])
    output = capsys.readouterr().out
    assert "37 labels, 20 distinct, 17 shared" in output and "automobile (bdd100k); car (cityscapes)" in output


@pytest.mark.parametrize(
    ("name", "expected"),
    [("wall-other-merged", "wall"), ("Door-Stuff", "door"), ("books", "book"), ("glass", "glass"), ("bus", "bus")],
)
def test_names_without_what_is_only_spelling(name, expected):
    assert cleaned(name) == expected


def test_a_single_dataset_has_no_conflicts():
    with pytest.raises(InputError, match="at least two"):
        main(["conflicts", "ade20k"])


def test_synonyms_work_both_ways_and_in_every_form(tmp_path):
    assert "automobile" in Relations.read(KNOWN).other_names()["car"]
    (tmp_path / "words.json").write_text('{"about": "x", "synonyms": {"Sofa": "couch", "tv": ["television", "telly"]}}')
    names = Relations.read(tmp_path / "words.json").other_names()
    assert names["couch"] == ["sofa"] and names["telly"] == ["tv", "television"]


def test_bad_relations_name_the_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("synonyms:\n  - [couch]\nsynonims: [a]\n")
    with pytest.raises(InputError) as caught:
        Relations.read(tmp_path / "bad.yaml")
    assert all(piece in str(caught.value) for piece in ("line 2", "one name", "'synonims'", "synonyms"))
