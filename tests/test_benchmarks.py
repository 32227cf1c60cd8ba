"""The benchmarks run, write what the tables read, and count the work that is done."""

import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import (
    block_cache,
    crossbar_solve,
    order_gradients,
    preference_step,
    sample_step,
    sampler_laws,
    schedule_sweep,
    train_step,
)
from benchmarks.common import forward_matmuls, matmul, write
from experiments import table_columns, tables
from mdmjax.crossbar import Wires, nodal
from mdmjax.networks import TransformerConfig, forward_flops, parameter_count, transformer

SIZES = "--depth 1 --width 16 --heads 2 --length 8 --vocab 5 --rounds 1 --matmul 16".split()
BENCHMARKS = {
    "train_step": (train_step, [*SIZES, "--batch", "8", "--head", "packed"]),
    "sample_step": (sample_step, [*SIZES, "--batch", "2", "--steps", "4", "--capacity", "3"]),
    "block_cache": (block_cache, [*SIZES, "--batch", "2", "--block", "4", "--steps", "4"]),
    "sampler_laws": (sampler_laws, []),
    "schedule_sweep": (schedule_sweep, "--grid 2 --steps 3 --samples 16".split()),
    "order_gradients": (order_gradients, []),
    "preference_step": (
        preference_step,
        "--depth 1 --width 16 --heads 2 --length 8 --vocab 5 --pairs 2 --rounds 1 --draws 2".split(),
    ),
    "crossbar_solve": (
        crossbar_solve,
        "--size 12 --tiles 6 --chunk 4 --effective 3 --peers 2 --rounds 1 --density 0.5".split(),
    ),
}


def kirchhoff(inputs, resistances, *, r_i, node_voltages, all_currents):
    """What badcrossbar computes, which need not be installed: its bit lines end at the last row."""
    currents = [nodal(1 / resistances[::-1], v, Wires(r_i, r_i)) for v in inputs[::-1].T]
    return SimpleNamespace(currents=SimpleNamespace(output=np.stack(currents)))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_writes_every_number_that_its_table_shows(name, tmp_path, monkeypatch):
    benchmark, argv = BENCHMARKS[name]
    path = tmp_path / "benchmarks" / f"{name}.json"
    monkeypatch.setitem(sys.modules, "badcrossbar", SimpleNamespace(compute=kirchhoff))
    write(benchmark.measure(benchmark.arguments(argv)), str(path))
    tree = json.loads(path.read_text())
    table = tables.TABLES[name]
    missing = [
        c.header for row in table.trees(path) for c in table.columns if table_columns.lookup(row, c.path) is None
    ]
    assert set(missing) <= {table_columns.COMMIT.header}  # a copy of the library outside a checkout has none
    assert tables.render(name, tmp_path).count("\n") == 1 + len(table.trees(path))
    CHECKS[name](tree)


def check_training(tree):
    assert 0 < tree["fraction_quartiles"][0] <= tree["fraction_of_matmul"] <= tree["fraction_quartiles"][1]
    assert tree["fraction_of_matmul"] < tree["fraction_of_matmul_by_convention"]
    assert tree["memory_bytes"]["peak"] == tree["memory_bytes"]["held"] + tree["memory_bytes"]["temporaries"]
    assert tree["peak_bytes"]["bytes"] > tree["memory_bytes"]["peak"]


def check_sampling(tree):
    """2 rows of 8 masks, 4 steps; the calls of "asked" that 3 positions a row are enough for read those only."""
    runs = tree["runs"]
    assert runs["ancestral, full"]["positions_read"] == 16 * runs["ancestral, full"]["calls"]
    assert runs["confidence, full"]["calls"] == 4 == runs["first-hitting, asked"]["calls"]
    assert runs["first-hitting, asked"]["positions_read"] == 2 * 4
    asked = runs["ancestral, asked"]
    assert 6 * asked["calls"] <= asked["positions_read"] < 16 * asked["calls"]
    assert (asked["positions_read"] - 6 * asked["calls"]) % 10 == 0


def check_preference(tree):
    """Of 2 draws, in two passes and in one."""
    assert [(run["draws"], run["passes"]) for run in tree["runs"]] == [(2, 2), (2, 1)]
    assert all(run["step_seconds"] > 0 and run["temporaries_of_one"] > 0 for run in tree["runs"])


def check_cache(tree):
    """Random parameters; at the first call of each block the approximate caches are the network."""
    assert tree["calls"] == 8 and not tree["trained"]
    assert list(tree["speedup"]) == ["exact", *tree["error"]] == ["exact", "prefix", "dual"]
    assert all(0 < error["mean"] < error["largest"] < 1 for error in tree["error"].values())


def check_laws(tree):
    apart = tree["total_variation"]
    ancestral = [apart["ancestral"][str(steps)] for steps in (1, 2, 4, 8, 16, 32, 64)]
    assert all(2 * b > a > b > 0 for a, b in zip(ancestral[:-1], ancestral[1:], strict=True)) and ancestral[-1] < 1 / 64
    assert apart["random count"]["2"] > 0.01 and apart["random count"]["3"] < 1e-15
    assert apart["confidence"]["1"] == pytest.approx(ancestral[0]) and apart["confidence"]["64"] > 0.01


def check_sweep(tree):
    assert tree["schedules"] == 4 and tree["compilations"] == 1
    assert tree["compile_seconds"] + tree["sweep_seconds"] < tree["seconds"]


def check_gradients(tree):
    """All estimators have the same mean but for what is cut off; reference deviations at t_min = 1e-3 and K = 2."""
    found = tree["estimators"]
    for name, exact in (("order, one step", 1e-6), ("order, every step", 1e-6), ("time, weights raised", 1e-4)):
        assert found[name]["mean"] == pytest.approx([0.522963, -0.443903, -0.079060], abs=exact)
        assert found[name]["mean"] == pytest.approx(found[f"{name}, no baseline"]["mean"], abs=1e-9)
    for name, known in (  # of a Monte Carlo estimate, which sees little of the heavy tail
        ("time, as published", [1.8, 3.0, 2.4]),
        ("time, as published, no baseline", [1.5, 2.7, 2.2]),
    ):
        assert found[name]["deviation"] == pytest.approx(known, rel=0.2)
    for name in ("order, one step", "order, every step"):
        times = np.divide(found["time, as published"]["deviation"], found[name]["deviation"])
        assert (times > 2).all()
    assert found["order, one step"]["per call"] < found["order, every step"]["per call"]


def check_crossbar(tree):
    """Two wire resistances in two precisions. What float32 is away from float64 is rounding."""
    assert [(run["rho"], run["precision"]) for run in tree["runs"]] == [
        (rho, precision) for rho in (2.5e-4, 5e-3) for precision in ("float64", "float32")
    ]
    for run in tree["runs"]:
        near = {"float64": 1e-10, "float32": 2e-6}[run["precision"]]
        assert max(run["from_sparse_lu"], run["from_badcrossbar"], run["superposition"]) < near
        assert run["iterations_needed"] <= run["iterations"] and run["residual"] <= run["tolerance"]
        assert run["seconds"] > 0 and 0.4 < run["memory_of_half"] < 0.6  # linear in tiles


def test_crossbars_without_the_peer(monkeypatch):
    """The result says so, and has the numbers of everything else."""
    monkeypatch.setitem(sys.modules, "badcrossbar", None)
    argv = "--size 8 --tiles 4 --chunk 2 --effective 2 --peers 1 --rounds 1 --density 0.5 --rho 1e-3".split()
    tree = crossbar_solve.measure(crossbar_solve.arguments(argv))
    assert tree["badcrossbar"] == "not installed"
    assert all(run["than_sparse_lu"]["times"] > 0 and "than_badcrossbar" not in run for run in tree["runs"])


CHECKS = {
    "train_step": check_training,
    "sample_step": check_sampling,
    "block_cache": check_cache,
    "sampler_laws": check_laws,
    "schedule_sweep": check_sweep,
    "order_gradients": check_gradients,
    "preference_step": check_preference,
    "crossbar_solve": check_crossbar,
}


@pytest.mark.parametrize("tied", [False, True])
def test_flops_are_those_of_the_matmuls(tied):
    """But for attention's own products, in one count and not in the other, and the scales of norms."""
    config = TransformerConfig(vocab=501, length=16, width=32, depth=2, heads=2, tied=tied)
    params = jax.eval_shape(transformer(config).init, jax.random.key(0))
    attention = 2 * 3 * 16 * config.depth * 2 * 16 * config.width
    norms = 2 * 3 * 16 * (2 * config.depth + 1) * config.width
    mask = 2 * 3 * 16 * config.width * tied  # the row of the embedding that is no logit
    assert forward_matmuls(params, 3 * 16, 3 * 16) == forward_flops(config, 3, 16) - attention + norms + mask


def test_the_convention_overstates_a_large_vocabulary():
    def overstated(vocab, share):
        params = jax.eval_shape(transformer(TransformerConfig(vocab=vocab, length=256)).init, jax.random.key(0))
        return 6 * parameter_count(params) * 2048 / (3 * forward_matmuls(params, 2048, round(share * 2048)))

    assert 1 < overstated(35, 1) < 1.01
    assert overstated(50_257, 1) == pytest.approx(1.65, abs=0.02)
    assert overstated(50_257, 0.57) == pytest.approx(2.3, abs=0.05)


def test_the_yardstick_runs_on_every_device_at_once():
    run, flops = matmul(jax.devices(), "float32", 16)
    assert run().shape == (16 * len(jax.devices()), 16) and len(run().sharding.device_set) == len(jax.devices())
    assert flops == 2 * 16**3 * len(jax.devices())
