"""The rules of the house: what may import what, what an import does, that notebooks run and code explains itself."""

import ast
import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

import mdmjax
from mdmjax.process import example_keys

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "mdmjax").rglob("*.py"))
PROGRAMS = sorted((ROOT / "experiments").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
CODE = [path for folder in ("mdmjax", "experiments", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]


def name(path):
    return str(path.relative_to(ROOT))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def python(code, **environment):
    """The standard output of a fresh interpreter, without the import hook and the settings of the tests."""
    env = {**os.environ, **environment}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout


# ---- imports ---------------------------------------------------------------------------------------------------------


def test_import_contracts():
    command = [Path(sys.executable).parent / "lint-imports", "--config", "setup.cfg", "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]
    assert "0 broken" in run.stdout


def test_import_contracts_know_every_room():
    """A new room joins the layers, so that no room is outside the contract."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    layers = config["importlinter:contract:floors"]["layers"].split()
    rooms = {module_name(path).split(".")[1] for path in LIBRARY if path.parent != ROOT / "mdmjax"} | {"base"}
    assert rooms - {layer.removeprefix("mdmjax.") for layer in layers} == set()


# A platform that does not exist: whatever asks for a device, or makes an array, fails.
NO_DEVICE = {"JAX_PLATFORMS": "no_such_platform"}
HEAVY = "flax optax orbax grain tensorflow_datasets matplotlib tqdm tensorboardX absl ml_collections tensorflow torch"


def test_import_is_light_and_touches_no_device():
    """What makes it quick: the nouns come with JAX and nothing else, each room with its own packages."""
    code = f"""
import sys, mdmjax
print("jax" in sys.modules)
nouns = [getattr(mdmjax, name) for name in {mdmjax._ROOMS["base"]}]
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    first, loaded = python(code, **NO_DEVICE).splitlines()
    assert first == "False" and set(loaded.split()) & set(HEAVY.split()) == set()


# Notes each module that is asked for, and by whom, so that one that is not installed, in a `try`, is seen as well.
RECORDER = """
class Recorder:
    asked = set()

    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        self.asked.add((frame.f_globals["__name__"].split(".")[0], name.split(".")[0]))

sys.meta_path.insert(0, Recorder())
"""


def test_no_module_touches_a_device_or_tensorflow():
    code = f"""
import importlib, sys, jax
{RECORDER}
for name in {[module_name(path) for path in LIBRARY + PROGRAMS]}:
    importlib.import_module(name)
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
try:
    jax.devices()
except RuntimeError:
    print("device refused")
print(*sorted(module for importer, module in Recorder.asked if importer in ("mdmjax", "experiments")))
"""
    loaded, refused, asked = python(code, **NO_DEVICE).splitlines()
    assert refused == "device refused"  # so the imports above would have failed
    assert "flax" in asked.split()  # the recorder works
    assert {"tensorflow", "torch", "clu"} & {*loaded.split(), *asked.split()} == set()


def test_the_import_hook_checks_shapes():
    key = jax.random.key(0)
    assert example_keys(key, jnp.arange(2)).shape == (2,)
    with pytest.raises(jaxtyping.TypeCheckError, match="ids"):
        example_keys(key, jnp.zeros((2, 2), int))  # annotated "B"


def test_every_package_is_installed():
    """setuptools finds a folder only if it has an __init__.py."""
    assert [name(p.parent) for p in LIBRARY + PROGRAMS if not (p.parent / "__init__.py").exists()] == []


# ---- text ------------------------------------------------------------------------------------------------------------


def undocumented(path):
    tree = ast.parse(path.read_text())
    public = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    return [getattr(node, "name", "module") for node in [tree, *public] if not ast.get_docstring(node)]


def test_public_names_are_documented():
    missing = {name(path): undocumented(path) for path in LIBRARY + PROGRAMS if path.read_text().strip()}
    assert {path: names for path, names in missing.items() if names} == {}


def test_files_are_short_enough_to_hold():
    lengths = {name(path): len(path.read_text().splitlines()) for path in CODE}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_test_files_have_names_of_their_own():
    """They are imported by base name."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]
    assert sorted(set(names)) == sorted(names)


# ---- notebooks -------------------------------------------------------------------------------------------------------


def cells(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebook_holds_no_outputs(notebook):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(notebook))


# Fewer steps and rows than a reader wants to see: what is asserted in a notebook has to hold all the same.
SHORTER = {
    "quickstart": {"steps=200": "steps=80", "islice(stream, 200)": "islice(stream, 80)"},
    "schedules_and_orders": {"steps, rows = 8, 256": "steps, rows = 8, 64", "length=250)": "length=50)"},
}


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebook_runs(notebook, tmp_path):
    """All code cells one after the other in one namespace. Lines for the shell or IPython are left out."""
    sources = ["".join(cell["source"]) for cell in cells(notebook)]
    for whole, less in SHORTER.get(notebook.stem, {}).items():
        assert sum(source.count(whole) for source in sources) == 1, whole
        sources = [source.replace(whole, less) for source in sources]
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(line for s in sources for line in s.splitlines() if not line.startswith(("!", "%"))))
    python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", MPLBACKEND="Agg")


# ---- README ----------------------------------------------------------------------------------------------------------


def test_snippets_of_the_readme_run():
    snippets = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert snippets
    for snippet in snippets:
        python(snippet)


# ---- metadata --------------------------------------------------------------------------------------------------------


def test_licence_and_version_are_said_once():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert (ROOT / "LICENSE").read_text().split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert config["metadata"]["license"] == "Apache-2.0"
    assert mdmjax.__version__ == config["metadata"]["version"]
