"""README's numbers are those of the kept reports."""

import json

import pytest

from experiments import cli, tables


def test_readme_agrees_with_results():
    text = tables.README.read_text()
    assert tables.rebuild(text) == text
    kept = [name for name, table in tables.TABLES.items() if any(tables.RESULTS.glob(table.files))]
    assert [name for name in kept if f"<!-- table:{name} -->" not in text] == []


def test_the_kept_demo_is_the_demo_of_its_config():
    kept = json.loads((tables.RESULTS / "training" / "demo" / "report.json").read_text())
    assert kept["config"] == cli.to_dict(cli.load_config("experiments/configs/demo_python_docs.py"))
    assert kept["environment"]["dirty"] is False


def test_a_changed_number_is_noticed(tmp_path):
    folder = tmp_path / "training" / "demo"
    folder.mkdir(parents=True)
    report = {"title": "a|b", "metrics": {"validation bits_per_char": {"mean": 2.61234, "standard_error": 0.0123}}}
    (folder / "report.json").write_text(json.dumps(report))
    readme = "<!-- table:training -->\nold\n<!-- /table -->"
    first = tables.rebuild(readme, tmp_path)
    assert "2.612 ± 0.012" in first and "a\\|b" in first and tables.rebuild(first, tmp_path) == first
    report["metrics"]["validation bits_per_char"]["mean"] = 2.5
    (folder / "report.json").write_text(json.dumps(report))
    assert tables.rebuild(first, tmp_path) != first


def test_unknown_and_empty_tables_are_named(tmp_path):
    with pytest.raises(ValueError, match="nope"):
        tables.rebuild("<!-- table:nope --><!-- /table -->")
    with pytest.raises(ValueError, match="nothing matches"):
        tables.render("training", tmp_path)
